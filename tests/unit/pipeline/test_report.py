from __future__ import annotations

import re

import cv2
import numpy as np
import pytest
from rich.console import Console

from dapo.errors import OutputError
from dapo.inspection import Defect, Evaluation, ResultState, Verdict
from pipeline.report.console import summary_table
from pipeline.report.overlay import MAX_SIDE, OTHER, colours, draw_overlay
from pipeline.report.page import MAX_FRAMES, write_report
from pipeline.summary import FrameOutcome, RunSummary


def outcome(name, score=0.5, types=("scratch",), overlay="", state=ResultState.COMPLETED):
    evaluation = Evaluation.NOT_OK if score > 0.4 else Evaluation.OK
    return FrameOutcome(name, state, evaluation, "", "why", score, types, overlay)


def page(tmp_path, *outcomes, **header):
    summary = RunSummary(
        source="parts/", product="bottle", pack_name="a.pack", configuration_hash="ab" * 32, **header
    )
    for one in outcomes:
        summary.add(one)
    return write_report(tmp_path, summary).read_text(encoding="utf-8"), summary


def test_hostile_names_are_text(tmp_path):
    evil = "<script>alert(1)</script>.png"
    html, _ = page(tmp_path, outcome(evil, types=('"><img src=x>',)), outcome(evil, state=ResultState.FAILED))
    assert "<script>alert" not in html
    assert "<img src=x>" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_the_page_stands_alone(tmp_path):
    (tmp_path / "overlays").mkdir()
    cv2.imwrite(str(tmp_path / "overlays" / "a.jpg"), np.zeros((8, 8, 3), np.uint8))
    html, _ = page(
        tmp_path, outcome("a.png", overlay="overlays/a.jpg"), outcome("b.png", overlay="overlays/lost.jpg")
    )
    assert html.count("data:image/jpeg;base64,") == 1
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", html)
    assert "http" not in html
    assert 'name="viewport"' in html
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_the_histogram_shows_scores_and_thresholds(tmp_path):
    html, _ = page(tmp_path, outcome("a", 0.1), outcome("b", 0.9), threshold_ok=0.25, threshold_notok=0.5)
    assert html.count("<rect") == 2
    assert "OK below 0.250" in html
    assert "NotOK from 0.500" in html
    where = float(re.search(r'<line x1="([\d.]+)"[^>]*stroke="#d55e00"', html).group(1))
    assert where == 8 + 0.25 * (640 - 16)


def test_the_histogram_can_be_read_on_a_phone(tmp_path):
    html, _ = page(tmp_path, *(outcome(f"{n}", 0.1) for n in range(37)), threshold_notok=0.5)
    assert "<text" not in html  # text inside the drawing shrinks with it
    assert re.search(r"<span>37</span>\s*<span>frames</span>\s*<span>0</span>", html)
    assert "vector-effect" in html
    assert "font-size: 11px" not in html


def test_pictures_are_reached_by_keyboard_and_frames_without_one_are_rows(tmp_path):
    (tmp_path / "o").mkdir()
    cv2.imwrite(str(tmp_path / "o" / "a.jpg"), np.zeros((8, 8, 3), np.uint8))
    html, _ = page(
        tmp_path,
        outcome("with", overlay="o/a.jpg"),
        outcome("plain", 0.2, ()),
        outcome("lost", overlay="o/b.jpg"),
    )
    assert html.count("<figure>") == html.count("<button type=") == html.count("data:image") == 1
    assert re.search(r'<button type="button" aria-label="Enlarge with"><img', html)
    assert re.search(r"<tr><td>0.200</td><td>OK</td><td>plain</td></tr>", html)
    assert html.index("<td>lost</td>") < html.index("<td>plain</td>")


def test_a_page_that_can_not_be_written_leaves_nothing(tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OutputError, match=r"report\.html: can't be written"):
        write_report(tmp_path, RunSummary())
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_run_of_nothing_has_a_page_too(tmp_path):
    html, summary = page(tmp_path)
    assert "<b>0</b>frames" in html
    console = Console(width=100, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    console.print(summary_table(summary))
    assert "no frames found" in console.export_text()
    console.file.close()


def test_the_worst_come_first_and_the_rest_is_counted(tmp_path):
    (tmp_path / "o").mkdir()
    cv2.imwrite(str(tmp_path / "o" / "a.jpg"), np.zeros((8, 8, 3), np.uint8))
    outcomes = [outcome(f"f{i:03d}", i / 100, overlay="o/a.jpg") for i in range(MAX_FRAMES + 5)]
    html, _ = page(tmp_path, *outcomes, interrupted=True)
    assert html.index("f064") < html.index("f063") < html.index("f010")
    assert "5 more overlays" in html
    assert "--resume" in html


def test_the_console_names_counts_types_and_worst(tmp_path):
    _, summary = page(
        tmp_path,
        outcome("[bold]a.png", 0.9),
        outcome("b.png", 0.1, ()),
        outcome("c", state=ResultState.FAILED),
    )
    with open(tmp_path / "log", "w", encoding="utf-8") as log:
        console = Console(width=100, record=True, file=log)
        console.print(summary_table(summary))
        text = console.export_text()
    assert "[bold]a.png" in text
    assert f"3 frames in 0.0 s, product bottle, pack a.pack {'ab' * 6}\n" in text  # not wrapped to the table
    assert re.search(r"1\s+NotOK\s+33.3 %", text)
    assert "Failed (dead letter)" in text
    assert "scratch" in text


def defect(x, y, w, h, slug="scratch"):
    return Defect(slug, 0.8, (x, y, w, h), w * h, None, 0.01, (x + w / 2, y + h / 2), np.ones((h, w), bool))


def verdict(*defects):
    return Verdict(Evaluation.NOT_OK, "", "", 0.8, None, None, defects)


def test_overlays_outline_without_touching_the_frame():
    pixels = np.full((300, 400, 3), 120, np.uint8)
    before = pixels.copy()
    drawn = draw_overlay(pixels, verdict(defect(100, 100, 60, 40)))
    assert np.array_equal(pixels, before)
    assert max(drawn.shape[:2]) == 480  # enlarged by 1.2: labels must be readable
    assert (drawn[144, 120] != 120).any()
    assert (drawn[144, 156] == 120).all()  # the inside stays visible
    assert (drawn[300, 420] == 120).all()


def test_overlays_of_any_size_are_drawn():
    for height, width in ((3000, 4000), (9, 12), (1, 500), (2000, 10)):
        pixels = np.zeros((height, width, 3), np.uint8)
        drawn = draw_overlay(pixels, verdict(defect(0, 0, min(5, width), min(5, height), "unknown")))
        assert max(drawn.shape[:2]) <= MAX_SIDE
        assert drawn.any()


def test_each_type_has_its_own_colour():
    slugs = [f"type-{number}" for number in range(500)]
    found = colours(slugs)
    assert list(found) == slugs
    assert len(set(found.values())) == 500
    few = np.array(list(found.values())[:12], float)
    apart = np.linalg.norm(few[:, None] - few[None], axis=-1)[~np.eye(12, dtype=bool)]
    assert apart.min() > 40  # of 442 between black and white
    assert colours(slugs[:3]) == dict(list(found.items())[:3])  # a further type moves no other's


def test_page_and_overlay_show_the_same_colour(tmp_path):
    palette = {"scratch": (1, 200, 3)}
    drawn = draw_overlay(np.zeros((100, 100, 3), np.uint8), verdict(defect(20, 40, 30, 30)), palette)
    assert (drawn == (1, 200, 3)).all(axis=2).any()
    drawn = draw_overlay(np.zeros((100, 100, 3), np.uint8), verdict(defect(20, 40, 30, 30, "other")), palette)
    assert (drawn == OTHER).all(axis=2).any()
    summary = RunSummary()
    summary.add(outcome("a"))
    summary.add(outcome("b", types=("other",)))
    html = write_report(tmp_path, summary, palette).read_text(encoding="utf-8")
    assert 'style="background: rgb(1, 200, 3)"></span>scratch' in html
    assert 'style="background: rgb(150, 150, 150)"></span>other' in html
