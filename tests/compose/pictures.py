"""Pictures of a demo that runs, for docs/demo.md: its verdicts outlined, and its dashboard's panels as Prometheus fills them.

    python -m tests.compose.pictures --out docs/pictures      beside a demo started with the profile `metrics`

The dashboard is drawn here because no Grafana was found among the package registries: titles, places, queries and
units are those of deploy/grafana/dashboards/line.json, the looks are not Grafana's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np

from dapo.inspection import Defect, Verdict
from pipeline.archive.keys import image_key_of
from pipeline.decode import decode
from pipeline.kafka.read import TopicReader
from pipeline.report.overlay import draw_overlay
from pipeline.settings import KafkaSettings, StoreSettings
from pipeline.store.open import open_store
from pipeline.stream.topics import Topics
from schemas.codec import decode_results
from schemas.results import ResultRow
from schemas.rle import decode_mask
from tests.compose.demo import DEPLOY, plain_query

_MINUTES = 10
_COLOURS = ("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0")
_UNITS = {"s": "s", "cps": "a second"}
_PAGE = Path(__file__).with_name("dashboard.html")


def dashboard(prometheus: str) -> str:
    """The dashboard as a page, of the last ten minutes.

    Args:
        prometheus: host:port.
    """
    board = json.loads((DEPLOY / "grafana" / "dashboards" / "line.json").read_text())
    unit = 1440 / 24
    panels = []
    for panel in board["panels"]:
        place = panel["gridPos"]
        shown: dict[str, Any] = {
            "type": panel["type"],
            "title": panel["title"],
            "left": place["x"] * unit + 4,
            "top": place["y"] * 38 + 4,
            "width": place["w"] * unit - 8,
            "height": place["h"] * 38 - 8,
        }
        if panel["type"] != "row":
            shown |= _filled(panel, prometheus, shown["width"])
        panels.append(shown)
    page = jinja2.Template(_PAGE.read_text(), autoescape=True)
    return page.render(panels=panels, height=max(p.get("height", 30) + p["top"] for p in panels) + 8)


def _filled(panel: dict[str, Any], prometheus: str, width: float) -> dict[str, Any]:
    defaults = panel["fieldConfig"]["defaults"]
    shown: dict[str, Any] = {
        "unit": _UNITS.get(defaults.get("unit"), ""),
        "empty": defaults.get("noValue", "nothing"),
    }
    if panel["type"] in ("timeseries", "state-timeline"):
        series = [one for target in panel["targets"] for one in _asked(prometheus, target, over=True)]
        values = [[float(value) for _, value in values] for _, values in series]
        finite = [value for one in values for value in one if np.isfinite(value)]
        if finite:
            least, most = min([0.0, *finite]), max(finite) or 1.0
            now = time.time()
            shown |= {"least": f"{least:.3g}", "most": f"{most:.3g}", "lines": []}
            for number, (name, points) in enumerate(series):
                places = [
                    f"{100 - (now - at) / (_MINUTES * 60) * 100:.2f},{98 - 96 * (float(value) - least) / (most - least):.2f}"
                    for at, value in points
                    if np.isfinite(float(value))
                ]
                shown["lines"].append(
                    {"name": name, "points": " ".join(places), "colour": _COLOURS[number % len(_COLOURS)]}
                )
        return shown
    found = [
        (n, float(v[-1][1])) for target in panel["targets"] for n, v in _asked(prometheus, target, over=False)
    ]
    if panel["type"] == "bargauge":
        most = max((value for _, value in found), default=0) or 1
        shown["bars"] = [
            {"name": name, "value": f"{value:g}", "width": (width - 190) * value / most}
            for name, value in found
        ]
    else:
        shown["stats"] = [{"name": name, "value": f"{value:,.4g}"} for name, value in found]
    return shown


def _asked(prometheus: str, target: dict[str, Any], *, over: bool) -> list[tuple[str, list[list[Any]]]]:
    """(name, [[time, value], ...]) of each series of a panel's query."""
    now = time.time()
    given = {"query": plain_query(target["expr"])}
    given |= {"start": str(now - _MINUTES * 60), "end": str(now), "step": "5"} if over else {}
    address = (
        f"http://{prometheus}/api/v1/{'query_range' if over else 'query'}?{urllib.parse.urlencode(given)}"
    )
    with urllib.request.urlopen(address, timeout=10) as answer:
        result = json.load(answer)["data"]["result"]
    return [(_name(target, one["metric"]), one["values"] if over else [one["value"]]) for one in result]


def _name(target: dict[str, Any], metric: dict[str, str]) -> str:
    name = target.get("legendFormat") or "{{}}"
    for label, value in metric.items():
        name = name.replace("{{" + label + "}}", value).replace("{{ " + label + " }}", value)
    return name if name not in ("{{}}", "__auto") else ", ".join(metric.values())


def verdicts(kafka: str, store: StoreSettings, count: int) -> np.ndarray:
    """The newest NotOK frames with their defects outlined, side by side: uint8 [h, w, 3] RGB.

    Args:
        kafka: host:port.
        count: of frames, in rows of four; the types take turns.
    """
    settings = KafkaSettings(bootstrap=kafka)
    with TopicReader(settings) as reader:
        records = reader.read(reader.span(Topics(settings.prefix).results))
        rows = [row for record in records for row in decode_results(record.value) if row.defects]
    by_type: dict[str, list[ResultRow]] = {}
    for row in sorted(rows, key=lambda row: row.finished_at, reverse=True):
        by_type.setdefault(row.defects[0]["type"], []).append(row)
    turns = [
        row for number in range(count) for group in by_type.values() for row in group[number : number + 1]
    ]
    images, opened = [], open_store(store)
    for row in turns:
        key = image_key_of(row, "png")
        if len(images) < count and any(opened.list(key)):
            verdict = Verdict("NotOK", "", "", 0.0, None, None, tuple(_defect(one) for one in row.defects))
            images.append(cv2.resize(draw_overlay(decode(opened.get(key)).pixels, verdict), (360, 360)))
    opened.close()
    return np.vstack([np.hstack(images[at : at + 4]) for at in range(0, len(images) - len(images) % 4, 4)])


def _defect(row: dict[str, Any]) -> Defect:
    x, y, width, height = row["bbox"]
    mask = decode_mask(row["mask"])[y : y + height, x : x + width]
    place = tuple(row["centroid"])
    return Defect(
        row["type"],
        row["score"],
        (x, y, width, height),
        row["area_px"],
        None,
        row["area_fraction"],
        place,
        mask,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kafka", default="127.0.0.1:19092")
    parser.add_argument("--store", default="127.0.0.1:9000")
    parser.add_argument("--prometheus", default="127.0.0.1:9090")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    key, secret = ((DEPLOY / "secrets" / f"store_{name}_key").read_text() for name in ("access", "secret"))
    sheet = verdicts(
        options.kafka, StoreSettings(endpoint=options.store, access_key=key, secret_key=secret), 8
    )
    cv2.imwrite(str(options.out / "demo-verdicts.jpg"), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "dashboard.html"
        page.write_text(dashboard(options.prometheus))
        browser = ["chromium", "--headless", "--disable-gpu", "--hide-scrollbars"]
        if os.geteuid() == 0:  # Chromium does not start its sandbox for root
            browser.append("--no-sandbox")
        browser += [
            "--disable-background-networking",
            "--disable-component-update",
            f"--user-data-dir={folder}/chromium",
        ]
        picture = options.out / "demo-dashboard.png"
        subprocess.run(
            [*browser, "--window-size=1440,2540", f"--screenshot={picture}", page.as_uri()], check=True
        )


if __name__ == "__main__":
    main()
