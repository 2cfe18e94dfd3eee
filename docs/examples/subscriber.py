"""Each verdict once, into a table and as a JSON line: python subscriber.py HOST:PORT [--max N]. What it needs: docs/mes.md."""

import json
import sqlite3
import sys
from os import environ as env

import pyarrow.ipc
from kafka import KafkaConsumer, errors
from minio import Minio
from pycocotools import mask as coco


def verdicts(value):  # the rows of one message: masks as uint8 [height, width], the image's key up to its suffix
    for row in pyarrow.ipc.open_stream(value).read_all().to_pylist():
        for defect in row["defects"] or ():
            defect["mask"] = coco.decode({**defect["mask"], "counts": defect["mask"]["counts"].encode()})
        taken, place = row["captured_at"] or row["finished_at"], (row["line_id"] or "_", row["camera_id"] or "_")
        row["image"] = f"frames/{'/'.join(place)}/{taken:%Y/%m/%d/%H}/{row['frame_key']}."
        yield row


if __name__ == "__main__":
    left = int(sys.argv[sys.argv.index("--max") + 1]) if "--max" in sys.argv else -1
    keys = {name: env.get(f"DAPO_STORE__{name.upper()}") for name in ("endpoint", "access_key", "secret_key")}
    store = Minio(**keys, secure=False) if keys["endpoint"] else None
    table = sqlite3.connect(env.get("VERDICTS", "verdicts.db"), isolation_level=None)
    table.execute("CREATE TABLE IF NOT EXISTS verdicts (frame_key TEXT PRIMARY KEY, verdict TEXT)")
    read = {"isolation_level": "read_committed", "enable_auto_commit": False, "auto_offset_reset": "none"}
    broker = env.get("DAPO_KAFKA__BOOTSTRAP") or sys.argv[1]
    consumer = KafkaConsumer("inspection.results", bootstrap_servers=broker, group_id="mes", **read)
    while left:
        try:
            for batch in consumer.poll(1000).values():
                for row in (row for message in batch for row in verdicts(message.value)):
                    if left and ...:
                        print
