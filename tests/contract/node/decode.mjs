// Reads an Arrow IPC stream of the contract and prints its rows as JSON, masks as the count of pixels per row.
//   node decode.mjs FILE
import { readFileSync } from "node:fs";
import { tableFromIPC, Vector } from "apache-arrow";

// COCO's compressed run lengths: five bits a character, differences from the run before last, column-major.
export function decodeMask({ size, counts }) {
  const [height, width] = Array.from(size, Number);
  const runs = [];
  for (let at = 0; at < counts.length; ) {
    let value = 0, shift = 0, more = true;
    while (more) {
      const bits = counts.charCodeAt(at++) - 48;
      value |= (bits & 0x1f) << shift;
      shift += 5;
      more = (bits & 0x20) !== 0;
      if (!more && bits & 0x10) value |= -1 << shift;
    }
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  const mask = new Uint8Array(height * width); // row-major
  let position = 0, inside = 0;
  for (const run of runs) {
    for (let i = 0; i < run; i++, position++) mask[(position % height) * width + Math.floor(position / height)] = inside;
    inside ^= 1;
  }
  return { height, width, mask };
}

function plain(value) {
  if (typeof value === "bigint") return Number(value);
  if (value === null || typeof value !== "object") return value;
  if (ArrayBuffer.isView(value)) return Array.from(value, plain);
  if (value instanceof Vector) return Array.from(value.toArray(), plain);
  if (Array.isArray(value)) return value.map(plain);
  const out = {};
  for (const [key, item] of Object.entries(value.toJSON ? value.toJSON() : value)) {
    out[key] = plain(item);
    if (key === "mask" && item) {
      const { height, width, mask } = decodeMask({ size: plain(item.size), counts: item.counts });
      out.mask_row_sums = Array.from({ length: height }, (_, y) => mask.subarray(y * width, (y + 1) * width).reduce((a, b) => a + b, 0));
    }
  }
  return out;
}

if (process.argv[2]) {
  const table = tableFromIPC(readFileSync(process.argv[2]));
  const metadata = Object.fromEntries(table.schema.metadata);
  console.log(JSON.stringify({ metadata, rows: table.toArray().map(plain) }));
}
