// Each verdict once, as a JSON line: node subscriber.mjs HOST:PORT [--max N]. What it needs, and why so: docs/mes.md.
import { appendFileSync, readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { tableFromIPC, Vector } from "apache-arrow";
import { AwsClient } from "aws4fetch";
import { Kafka, logLevel } from "kafkajs";

// COCO's run lengths: five bits a character, differences from the run before last, column by column, background first.
export function decodeMask({ size: [height, width], counts }) {
  const runs = [], mask = new Uint8Array(height * width); // row by row
  for (let at = 0, position = 0; at < counts.length; position += runs.at(-1)) {
    let run = 0, shift = 0, bits;
    do {
      bits = counts.charCodeAt(at++) - 48;
      run |= (bits & 0x1f) << shift;
      shift += 5;
    } while (bits & 0x20);
    if (bits & 0x10) run |= -1 << shift;
    if (runs.length > 2) run += runs.at(-2);
    const inside = runs.push(run) % 2 === 0;
    for (let p = position; inside && p < position + run; p++) mask[(p % height) * width + Math.floor(p / height)] = 1;
  }
  return mask;
}

function plain(value) {
  if (typeof value === "bigint") return Number(value);
  if (value === null || typeof value !== "object") return value;
  if (value instanceof Vector || ArrayBuffer.isView(value)) return Array.from(value, plain);
  return Object.fromEntries(Object.entries(value.toJSON()).map(([name, item]) => [name, plain(item)]));
}

// The rows of one message, with the pixels of each mask and the image's key up to its suffix.
export function verdicts(bytes) {
  return tableFromIPC(bytes).toArray().map((one) => {
    const row = plain(one);
    for (const name in row) if (name.endsWith("_at") && row[name] !== null) row[name] = new Date(row[name]).toISOString();
    for (const defect of row.defects ?? []) defect.pixels = decodeMask(defect.mask).reduce((sum, pixel) => sum + pixel, 0);
    const hour = (row.captured_at ?? row.finished_at).slice(0, 13).replace(/[-T]/g, "/");
    row.image = `frames/${row.line_id ?? "_"}/${row.camera_id ?? "_"}/${hour}/${row.frame_key}.`;
    return row;
  });
}

async function archived(prefix) {
  const keys = ["ENDPOINT", "ACCESS_KEY", "SECRET_KEY"].map((name) => `DAPO_STORE__${name}`);
  const [host, accessKeyId, secretAccessKey] = keys.map((name) => process.env[name]);
  if (!host) return prefix;
  const store = new AwsClient({ accessKeyId, secretAccessKey, service: "s3", region: "us-east-1" });
  const answer = await store.fetch(`http://${host}/inspection?list-type=2&prefix=${encodeURIComponent(prefix)}`);
  return /<Key>([^<]*)<\/Key>/.exec(await answer.text())?.[1] ?? prefix;
}

async function main() {
  const { values, positionals } = parseArgs({ options: { max: { type: "string" } }, allowPositionals: true });
  const brokers = (positionals[0] ?? process.env.DAPO_KAFKA__BOOTSTRAP).split(",");
  const consumer = new Kafka({ brokers, logLevel: logLevel.ERROR }).consumer({ groupId: "mes" }); // read_committed by default
  const seen = new Set(readFileSync("seen.txt", { flag: "a+", encoding: "utf8" }).split("\n")); // yours: a unique key
  const enough = seen.size + Number(values.max ?? Infinity);
  await consumer.connect();
  await consumer.subscribe({ topic: "inspection.results", fromBeginning: true });
  await new Promise((ended, failed) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => payload.restart || failed(payload.error));
    consumer.run({ autoCommit: false, eachMessage: async ({ topic, partition, message }) => {
      if (seen.size >= enough) return;
      for (const row of verdicts(message.value)) {
        if (seen.has(row.frame_key)) continue;
        console.log(JSON.stringify({ ...row, image: await archived(row.image) }));
        appendFileSync("seen.txt", `${row.frame_key}\n`);
        seen.add(row.frame_key);
      }
      await consumer.commitOffsets([{ topic, partition, offset: String(BigInt(message.offset) + 1n) }]);
      if (seen.size >= enough) ended();
    } }).catch(failed);
  });
  await consumer.disconnect();
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await main();
