# Each verdict once, as a JSON line: python subscriber.py HOST:PORT [--max N]. What it needs, and why so: docs/mes.md.
import json
import sqlite3
import sys
from os import environ as env

import pyarrow.ipc
from kafka import KafkaConsumer, errors
from minio import Minio
from pycocotools import mask as coco


def verdicts(value):  # rows of a message; masks decode to uint8 [height, width]; `image` lacks its suffix
    for row in pyarrow.ipc.open_stream(value).read_all().to_pylist():
        row["defects"] = [d | {"pixels": int(coco.decode(d["mask"]).sum())} for d in row["defects"] or ()]
        hour = f"{row['captured_at'] or row['finished_at']:%Y/%m/%d/%H}"
        row["image"] = f"frames/{row['line_id'] or '_'}/{row['camera_id'] or '_'}/{hour}/{row['frame_key']}."
        yield row


if __name__ == "__main__":
    broker = env["DAPO_KAFKA__BOOTSTRAP"] if sys.argv[1:2] in ([], ["--max"]) else sys.argv[1]
    left = int(sys.argv[sys.argv.index("--max") + 1]) if "--max" in sys.argv else float("inf")
    s3 = {name: env.get(f"DAPO_STORE__{name.upper()}") for name in ("endpoint", "access_key", "secret_key")}
    archive = Minio(**s3, secure=False) if s3["endpoint"] else None
    table = sqlite3.connect("seen.db", isolation_level=None)
    table.execute("CREATE TABLE IF NOT EXISTS seen (frame_key TEXT PRIMARY KEY)")  # yours holds the verdict
    read = {"isolation_level": "read_committed", "enable_auto_commit": False, "auto_offset_reset": "none"}
    with KafkaConsumer("inspection.results", bootstrap_servers=broker, group_id="mes", **read) as consumer:
        while left > 0:
            try:
                for row in verdicts(next(consumer).value):
                    if table.execute("INSERT OR IGNORE INTO seen VALUES (?)", [row["frame_key"]]).rowcount:
                        found = archive.list_objects("inspection", row["image"]) if archive else ()
                        row["image"] = next((image.object_name for image in found), row["image"])
                        print(json.dumps(row, default=str), flush=True)
                        left -= 1
                consumer.commit()
            except errors.NoOffsetForPartitionError as new:  # first start: from the oldest on
                consumer.seek_to_beginning(*new.args[0])
