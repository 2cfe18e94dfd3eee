"""Files of annotations: COCO and Label Studio, and junk at any place of them."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from dapo.errors import SourceError
from tests.contract import dataset_trees as trees
from trainer.data.open import Options, open_dataset
from trainer.data.sample import State


class TestCoco:
    def test_an_image_without_annotation_is_unlabelled_unless_one_says_otherwise(self, root):
        name, _, _ = trees.coco_boxes(root)
        [state] = {s.state for s in open_dataset(name).product("lid").samples if not s.defective}
        assert state is State.UNLABELLED
        [state] = {
            s.state
            for s in open_dataset(name, Options(unannotated="good")).product("lid").samples
            if not s.defective
        }
        assert state is State.GOOD

    def test_parts_and_days(self, root):
        name, _, _ = trees.coco_boxes(root)
        self._change(name, lambda d: d["images"][0].update(part_id=7, day="2026-01-31", product="cap"))
        [sample] = open_dataset(name).product("cap").samples
        assert (sample.group, str(sample.day)) == ("7", "2026-01-31")

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda d: d.pop("categories"), "expected an object with images"),
            (lambda d: d["images"][0].pop("id"), r"images\[0\]: id: expected a text or a whole number"),
            (
                lambda d: d["images"][0].update(file_name="../../secret.png"),
                "image 0: file name .*expected a path below",
            ),
            (lambda d: d["images"][0].update(file_name="none.png"), "image 0: no file none.png in"),
            (lambda d: d["images"][0].update(day="tomorrow"), "image 0: day 'tomorrow'"),
            (lambda d: d["annotations"][0].update(image_id=99), "annotation 0: names the image 99"),
            (lambda d: d["annotations"][0].update(category_id=99), "annotation 0: category 99"),
            (lambda d: d["annotations"][0].update(bbox=[1, 2, 3]), "annotation 0: a box needs"),
            (lambda d: d["annotations"][0].update(bbox=[900, 900, 3, 3]), "annotation 0: no pixel"),
            (lambda d: d["annotations"][0].update(bbox=[1, 2, 3, float("nan")]), "annotation 0: a box needs"),
            (
                lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3, 4]]),
                "annotation 0: a polygon needs",
            ),
            (
                lambda d: d["annotations"][0].update(segmentation={"size": [4, 4], "counts": "!"}),
                "annotation 0: counts",
            ),
            (
                lambda d: d["annotations"][0].update(segmentation={"size": [4, 4], "counts": [3, 2]}),
                "annotation 0: run lengths must",
            ),
            (lambda d: d["images"].append(d["images"][0]), "image 0 is listed twice"),
            (lambda d: d["categories"].append(d["categories"][0]), "category 7 is listed twice"),
            (lambda d: d["images"][0].update(product="a/b"), "image 0: product 'a/b' can't be part"),
            (lambda d: d["images"][3].update(width="wide"), "image 3: width: expected a number"),
            (lambda d: d["images"][3].update(width=10**6), "image 3: width: expected a whole number of 1 to"),
        ],
    )
    def test_wrong_files_name_the_entry(self, root, change, says):
        name, _, _ = trees.coco_boxes(root)
        self._change(name, change)
        with pytest.raises(SourceError, match=says):
            open_dataset(f"coco:{name}")

    def test_one_file_twice_is_refused(self, root):
        name, _, _ = trees.coco_boxes(root)
        self._change(name, lambda d: d["images"][1].update(file_name=d["images"][0]["file_name"]))
        with pytest.raises(SourceError, match=r"lid/0\.png is listed twice"):
            open_dataset(name).product("lid")

    def test_a_category_called_good_is_no_defect_and_contradicts_one(self, root):
        name, _, _ = trees.coco_boxes(root)
        self._change(name, lambda d: d["categories"].append({"id": 8, "name": "Good"}))
        self._change(name, lambda d: d["annotations"][0].update(category_id=8))
        states = [s.state for s in open_dataset(name).product("lid").samples]
        assert states.count(State.GOOD) == 1
        self._change(name, lambda d: d["annotations"].append({"id": 9, "image_id": 3, "category_id": 7}))
        with pytest.raises(SourceError, match="image 3: is said to be good and has a defect"):
            open_dataset(name)

    def test_the_set_s_own_tree(self, root):
        """annotations/instances_train2017.json beside train2017/."""
        trees.coco_boxes(root)
        (root / "annotations").mkdir()
        (root / "images").rename(root / "train2017")
        moved = root / "annotations" / "instances_train2017.json"
        (root / "annotations.json").rename(moved)
        assert open_dataset(str(moved)).product("lid").samples[0].image().shape == (
            trees.HEIGHT,
            trees.WIDTH,
            3,
        )

    @staticmethod
    def _change(name, change):
        with open(name) as file:
            document = json.load(file)
        change(document)
        with open(name, "w") as file:
            json.dump(document, file)


class TestLabelStudio:
    def test_what_counts_as_labelled(self, root):
        name, _, _ = trees.label_studio_boxes(root)
        self._change(name, 0, annotations=[])
        self._change(name, 1, annotations=[{"result": [], "was_cancelled": True}])
        choice = {"type": "choices", "value": {"choices": ["Good"]}}
        self._change(name, 2, annotations=[{"result": [choice]}])
        later = {
            "result": [{"type": "choices", "value": {"choices": ["dent"]}}],
            "updated_at": "2026-02-02T00:00:00Z",
        }
        self._change(name, 3, annotations=[later, {"result": [], "updated_at": "2026-02-01T00:00:00Z"}])
        samples = open_dataset(name).product("lid").samples
        assert [(s.state, s.word) for s in samples[:4]] == [
            (State.UNLABELLED, None),
            (State.UNLABELLED, None),
            (State.GOOD, "good"),
            (State.DEFECTIVE, "dent"),
        ]
        assert not samples[3].drawn

    def test_a_turned_rectangle(self, root):
        name, _, _ = trees.label_studio_boxes(root)
        size = {"original_width": trees.WIDTH, "original_height": trees.HEIGHT}
        value = {"x": 50, "y": 0, "width": 50, "height": 25, "rotation": 90, "rectanglelabels": ["dent"]}
        self._change(name, 3, annotations=[{"result": [{"type": "rectanglelabels", "value": value, **size}]}])
        sample = open_dataset(name).product("lid").samples[3]
        mask = sample.regions[0].mask.at(
            60
        )  # 30 px wide, 10 high, turned about (30, 0): x 20..29, y 0..29 of 60 x 40
        assert mask[20, 25]
        assert not mask[20, 35]
        assert not mask[50, 25]

    @pytest.mark.parametrize(
        ("result", "says"),
        [
            (
                {"type": "ellipselabels", "value": {"ellipselabels": ["dent"]}},
                "ellipselabels is not understood",
            ),
            ({"type": "polygonlabels", "value": {"polygonlabels": ["a", "b"]}}, "a mark is called a, b"),
            ({"type": "polygonlabels", "value": {"polygonlabels": ["a"]}}, "points: expected a list"),
            ({"type": "brushlabels", "value": {"brushlabels": ["a"], "rle": [1, 2]}}, "end too early"),
            (
                {"type": "brushlabels", "value": {"brushlabels": ["a"], "rle": [0, 0, 0, 8] * 9}},
                "8 values, expected",
            ),
            (
                {"type": "brushlabels", "value": {"brushlabels": ["a"], "rle": [999]}},
                "rle: expected bytes",
            ),
        ],
    )
    def test_marks_that_are_not_understood_name_the_task(self, root, result, says):
        name, _, _ = trees.label_studio_boxes(root)
        size = {"original_width": trees.WIDTH, "original_height": trees.HEIGHT}
        self._change(name, 3, annotations=[{"result": [{**result, **size}]}])
        with pytest.raises(SourceError, match=f"task 3: .*{says}"):
            open_dataset(name)

    def test_files_of_one_name_are_told_by_their_folders(self, root):
        name, _, _ = trees.label_studio_boxes(root)
        for task, folder in enumerate(("left", "right")):
            trees.picture(root / "images" / folder / "7.png", 70 + task)
            self._change(
                name, task, data={"image": f"/data/local-files/?d=line/{folder}/7.png", "product": "cap"}
            )
        one, other = open_dataset(name).product("cap").samples
        assert (one.key, other.key) == ("left/7.png", "right/7.png")
        assert (one.image() != other.image()).any()

    def test_texts_say_nothing_of_defects(self, root):
        name, _, _ = trees.label_studio_boxes(root)
        self._change(name, 3, annotations=[{"result": [{"type": "textarea", "value": {"text": ["fine"]}}]}])
        assert open_dataset(name).product("lid").samples[3].state is State.GOOD

    def test_good_and_defective_at_once(self, root):
        name, _, _ = trees.label_studio_boxes(root)
        good = {"type": "choices", "value": {"choices": ["good"]}}
        dent = {"type": "choices", "value": {"choices": ["dent"]}}
        self._change(name, 3, annotations=[{"result": [good, dent]}])
        with pytest.raises(SourceError, match="task 3: is said to be good and has a defect"):
            open_dataset(name)

    @staticmethod
    def _change(name, task, **fields):
        with open(name) as file:
            document = json.load(file)
        document[task].update(fields)
        with open(name, "w") as file:
            json.dump(document, file)


JUNK = (
    None,
    True,
    -1,
    10**30,
    float("nan"),
    float("inf"),
    "",
    "\0",
    "x" * 5000,
    "../x",
    [],
    [None],
    {},
    [[1]],
    {"a": 1},
)


def places(value, at=()):
    """Every place in a JSON document."""
    yield at
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield from places(child, (*at, key))


@pytest.mark.parametrize(
    "build",
    [
        trees.coco_polygons,
        trees.coco_run_lengths,
        trees.label_studio_boxes,
        trees.label_studio_brushes,
        trees.real_iad,
    ],
)
def test_junk_at_any_place_is_told_or_taken_never_a_crash(build, root):
    name, kind, _ = build(root)
    path = root / "realiad_jsons" / "realiad_jsons" / "usb.json" if kind == "real-iad" else Path(name)
    document = json.loads(path.read_text())
    if kind == "label-studio":
        document = document[2:4]  # a good one and one with a mark: the others are alike
    some = [at for at in places(document) if at and not ("rle" in at and at[-1] != "rle")]
    told: list[str] = []
    for at in some:
        for junk in JUNK:
            changed = copy.deepcopy(document)
            inner = changed
            for key in at[:-1]:
                inner = inner[key]
            inner[at[-1]] = junk
            path.write_text(json.dumps(changed))
            try:
                data = open_dataset(f"{kind}:{name}")
                for product in data.products():
                    for sample in data.product(product).samples:
                        sample.types_at(["scratch"], 8)
            except SourceError as error:
                told.append(str(error))
    assert len(told) > len(some)
    assert all(str(root) in message for message in told)
