"""What each layout says of itself, and what a wrong tree is told."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dapo.errors import SourceError
from tests.contract import dataset_trees as trees
from trainer.data.open import Options, open_dataset
from trainer.data.sample import State
from trainer.data.words import Words


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


class TestMvtec:
    def test_words_lists_and_splits(self, root):
        trees.mvtec(root)
        trees.picture(root / "bottle" / "test" / "print" / "9.png", 9)
        trees.mask(root / "bottle" / "ground_truth" / "print" / "9.png")
        data = open_dataset(f"mvtec:{root}").product("bottle")
        assert data.words == ("faulty imprint", "scratch")
        assert data.listed == ("broken", "contamination")
        assert data.absent == ("broken", "contamination")
        assert [s.split for s in data.samples] == ["test"] * 4 + ["train"] * 3
        assert len(data.test.samples) == 4

    def test_several_types_in_one_frame(self, root):
        trees.mvtec(root)
        (root / "bottle" / "types.json").write_text('{"0": "background", "1": "pin_hole", "2": "spur"}')
        labels = np.zeros((trees.HEIGHT, trees.WIDTH), np.uint8)
        labels[10:20, 30:40], labels[10:20, 40:50], labels[0, 0] = 1, 2, 9
        where = root / "bottle" / "ground_truth_types" / "scratch_head"
        where.mkdir(parents=True)
        cv2.imwrite(str(where / "000_types.png"), labels)
        data = open_dataset(str(root)).product("bottle")
        sample = data.samples[0]
        assert (sample.word, sample.words) == (None, ("pin hole", "spur"))
        assert set(np.unique(sample.types_at(["pin hole", "spur"], 40))) == {-1, 0, 1, 2}
        assert data.words == ("pin hole", "spur", "scratch")
        cv2.imwrite(str(where / "000_types.png"), labels * 0)
        with pytest.raises(SourceError, match=r"000_types\.png: marks no pixel"):
            open_dataset(str(root)).product("bottle")

    def test_wrong_trees(self, root):
        trees.mvtec(root)
        lost = root / "bottle" / "ground_truth" / "scratch_head" / "001_mask.png"
        lost.unlink()
        with pytest.raises(SourceError, match=r"001\.png: has no mask.*001_mask\.png"):
            open_dataset(str(root)).product("bottle")
        (root / "cable" / "test" / "empty").mkdir()
        with pytest.raises(SourceError, match="no images in it"):
            open_dataset(str(root)).product("cable")
        for name in (f"mvtec:{root / 'cable'}", str(root / "cable")):
            with pytest.raises(
                SourceError, match=r"Expected PRODUCT/test/good.* Give .*data, the folder above"
            ):
                open_dataset(name)


class TestVisa:
    def test_its_labels_masks_and_split(self, root):
        trees.visa(root)
        data = open_dataset(str(root)).product("cashew")
        assert data.words == ("scratch",)
        assert data.listed[:2] == ("scratch", "breakage")
        splits = {s.key: s.split for s in data.samples}
        assert splits["cashew/Data/Images/Normal/0000.JPG"] == "train"
        assert splits["cashew/Data/Images/Normal/0001.JPG"] is None

    def test_several_types_are_told_by_grey_value(self, root):
        trees.visa(root)
        self._relabel(root, "small scratches,burnt")
        drawn = np.zeros((trees.HEIGHT, trees.WIDTH), np.uint8)
        drawn[:10], drawn[20:30] = 6, 1
        cv2.imwrite(str(root / "cashew/Data/Masks/Anomaly/000.png"), drawn)
        sample = next(s for s in open_dataset(str(root)).product("cashew").samples if s.defective)
        states = sample.types_at(["burnt", "scratch"], 40)
        assert states[5, 5] == 2
        assert states[25, 5] == 1
        assert states[15, 5] == 0

    def test_other_says_no_type(self, root):
        trees.visa(root)
        self._relabel(root, "other")
        sample = next(s for s in open_dataset(str(root)).product("cashew").samples if s.defective)
        assert (sample.word, sample.drawn) == (None, True)

    @pytest.mark.parametrize(
        ("label", "says"),
        [
            ("normal,burnt", r"image_anno\.csv:3: label 'normal,burnt'"),
            (" ", r"image_anno\.csv:3: label ' '"),
        ],
    )
    def test_a_label_that_contradicts_itself(self, root, label, says):
        trees.visa(root)
        self._relabel(root, label)
        with pytest.raises(SourceError, match=says):
            open_dataset(str(root)).product("cashew")

    @pytest.mark.parametrize("path", ["../secret.JPG", "/etc/passwd"])
    def test_nothing_outside_is_read(self, root, path):
        trees.visa(root)
        trees.picture(root.parent / "secret.JPG", 1)
        (root / "cashew" / "image_anno.csv").write_text(f"image,label,mask\n{path},normal,\n")
        with pytest.raises(SourceError, match=r"image_anno\.csv:2: file name .*expected a path below"):
            open_dataset(str(root)).product("cashew")

    def test_wrong_trees(self, root):
        trees.visa(root)
        (root / "cashew/Data/Images/Anomaly/001.JPG").unlink()
        with pytest.raises(SourceError, match=r"image_anno\.csv:5: .*001\.JPG: no such file"):
            open_dataset(str(root)).product("cashew")
        (root / "pcb1" / "image_anno.csv").write_text("image,mask\n")
        with pytest.raises(SourceError, match="has no column 'label'"):
            open_dataset(str(root)).product("pcb1")
        (root / "split_csv" / "1cls.csv").write_text("image,split\na,validation\n")
        with pytest.raises(SourceError, match=r"1cls\.csv:2: split 'validation'"):
            open_dataset(str(root))

    @staticmethod
    def _relabel(root, label):
        """Another label for the first defective frame of cashew."""
        path = root / "cashew" / "image_anno.csv"
        rows = list(csv.reader(path.read_text().splitlines()))
        rows[2][1] = label
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)


class TestRealIad:
    def test_codes_groups_and_splits(self, root):
        trees.real_iad(root)
        samples = open_dataset(str(root)).product("usb").samples
        assert [s.word for s in samples] == ["good"] * 3 + ["scratch"] * 3
        assert samples[0].group == "usb/OK/S0000"
        assert samples[3].group == "usb/NG/HS/S0000"
        assert {s.split for s in samples} == {"train", "test"}

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"train": None}, r"usb\.json: train: expected a list"),
            ({"meta": 3}, r"usb\.json: meta: expected an object"),
            ({"meta": {"normal_class": "OK", "prefix": "../.."}}, r"meta: file name .*expected a path below"),
            ({"train": [3]}, r"train\[0\]: expected an object"),
            (
                {"train": [{"anomaly_class": "OK", "image_path": "../x.jpg"}]},
                r"train\[0\]: .*expected a path below",
            ),
            (
                {
                    "train": [
                        {
                            "anomaly_class": "HS",
                            "image_path": "OK/S0000/usb_0000_OK_C1.jpg",
                            "mask_path": "/etc/passwd",
                        }
                    ]
                },
                r"train\[0\]: .*expected a path below",
            ),
            (
                {"train": [{"anomaly_class": "OK", "image_path": "none.jpg"}]},
                r"train\[0\]: .*none\.jpg: no such file",
            ),
            ({"train": [], "test": []}, "lists no image"),
        ],
    )
    def test_wrong_lists(self, root, change, says):
        trees.real_iad(root)
        path = root / "realiad_jsons" / "realiad_jsons" / "usb.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(SourceError, match=says):
            open_dataset(str(root)).product("usb")

    def test_wrong_trees(self, root):
        trees.real_iad(root)
        (root / "realiad_1024").rename(root / "elsewhere")
        with pytest.raises(SourceError, match="Expected realiad_jsons"):
            open_dataset(str(root))


class TestFolder:
    def test_one_product_and_frames_nobody_looked_at(self, root):
        trees.picture(root / "good" / "1.png", 1)
        trees.picture(root / "deep_scratch" / "2.png", 2)
        trees.picture(root / "unlabelled" / "3.png", 3)
        data = open_dataset(str(root))
        assert data.products() == ["data"]
        samples = data.product("data").samples
        assert [(s.state, s.word) for s in samples] == [
            (State.DEFECTIVE, "deep scratch"),
            (State.GOOD, "good"),
            (State.UNLABELLED, None),
        ]
        assert samples[0].mask_at(8) is None
        assert [s.state for s in data.product("data").test.samples] == [State.DEFECTIVE, State.GOOD]

    @pytest.mark.parametrize(("folder", "state"), [("Good", State.GOOD), ("unlabeled", State.UNLABELLED)])
    def test_other_spellings(self, root, folder, state):
        trees.picture(root / "lid" / "good" / "1.png", 1)
        trees.picture(root / "lid" / folder / "2.png", 2)
        assert {s.state for s in open_dataset(str(root)).product("lid").samples if folder in s.key} == {state}

    @pytest.mark.parametrize("folder", ["mask", "OK", "train"])
    def test_folders_that_may_be_no_type(self, root, folder, tmp_path):
        trees.picture(root / "good" / "1.png", 1)
        trees.picture(root / folder / "2.png", 2)
        with pytest.raises(SourceError, match=f"is '{folder}' a type of defect"):
            open_dataset(f"folder:{root}").product("data")
        words = tmp_path / "words.toml"
        words.write_text(f'[words]\n{folder} = "good"\n')
        samples = open_dataset(f"folder:{root}", Options(words=words)).product("data").samples
        assert [s.state for s in samples] == [State.GOOD] * 2

    def test_half_of_the_masks_is_refused(self, root):
        trees.folder(root)
        (root / "lid" / "masks" / "scratch" / "1.png").unlink()
        with pytest.raises(SourceError, match=r"scratch/1\.png: has no mask, though others of lid have"):
            open_dataset(str(root)).product("lid")


class TestMasks:
    @pytest.mark.parametrize("kind", ["16 bit", "palette", "grey as RGB"])
    def test_every_picture_with_one_number_a_pixel(self, root, kind):
        trees.folder(root)
        path = root / "lid" / "masks" / "scratch" / "0.png"
        drawn = trees.drawn()
        if kind == "16 bit":
            Image.fromarray(drawn.astype(np.uint16) * 200).save(path)
        elif kind == "palette":
            picture = Image.fromarray(drawn.astype(np.uint8), "L").convert("P")
            picture.putdata(drawn.astype(np.uint8).ravel().tolist())
            picture.putpalette([255, 255, 255, 0, 0, 0] + [0] * 750)  # its indices count, not its colours
            picture.save(path)
        else:
            Image.fromarray(np.repeat(drawn[..., None], 3, 2).astype(np.uint8) * 255).save(path)
        sample = next(
            s for s in open_dataset(str(root)).product("lid").samples if s.key == "lid/scratch/0.png"
        )
        other = next(
            s for s in open_dataset(str(root)).product("lid").samples if s.key == "lid/scratch/1.png"
        )
        np.testing.assert_array_equal(sample.mask_at(20), other.mask_at(20))

    def test_masks_that_are_none(self, root):
        trees.folder(root)
        path = root / "lid" / "masks" / "scratch" / "0.png"
        sample = next(
            s for s in open_dataset(str(root)).product("lid").samples if s.key == "lid/scratch/0.png"
        )
        cv2.imwrite(str(path), np.zeros((trees.HEIGHT, trees.WIDTH), np.uint8))
        with pytest.raises(SourceError, match=r"masks/scratch/0\.png: marks no pixel"):
            sample.mask_at(20)
        cv2.imwrite(str(path), np.full((trees.HEIGHT, trees.WIDTH, 3), (0, 0, 255), np.uint8))
        with pytest.raises(SourceError, match="the mask is in colour"):
            sample.mask_at(20)
        cv2.imwrite(str(path), np.full((trees.WIDTH, trees.HEIGHT), 255, np.uint8))
        with pytest.raises(SourceError, match="has 60 x 40 px, its mask 40 x 60"):
            sample.image()
        path.write_bytes(b"no picture")
        with pytest.raises(SourceError, match="the mask can't be read"):
            sample.mask_at(20)


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


def test_what_is_no_data_set_is_told_what_was_looked_for(root, tmp_path):
    with pytest.raises(SourceError, match="no such folder or file"):
        open_dataset(str(tmp_path / "none"))
    with pytest.raises(SourceError, match="no labelled images in it"):
        open_dataset(str(root))
    with pytest.raises(SourceError, match=r"'mvtek' is no format .*Did you mean 'mvtec'"):
        open_dataset("mvtek:/data")
    file = root / "x.json"
    file.write_text("{}")
    with pytest.raises(SourceError, match="expected an object with images"):
        open_dataset(str(file))
    file.write_text("{")
    with pytest.raises(SourceError, match="is no JSON"):
        open_dataset(str(file))


def test_groups_of_a_file(root, tmp_path):
    trees.folder(root)
    file = tmp_path / "groups.csv"
    rows = [f"lid/{kind}/{n}.png,part-{n},2026-01-0{n + 1}" for kind in ("good", "scratch") for n in range(3)]
    file.write_text("file,group,day\n" + "\n".join(rows))
    samples = open_dataset(str(root), Options(groups=file)).product("lid").samples
    assert {(s.group, str(s.day)) for s in samples} == {(f"part-{n}", f"2026-01-0{n + 1}") for n in range(3)}
    with pytest.raises(SourceError, match=r"has no row for valve/good/0\.png"):
        open_dataset(str(root), Options(groups=file)).product("valve")
    for text, says in (
        ("file\n", "has no column 'group'. Expected file, group, day"),
        ("file,group\na,\n", r"groups\.csv:2: file and group"),
        ("file,group,day\na,b,soon\n", r"groups\.csv:2: day 'soon'"),
    ):
        file.write_text(text)
        with pytest.raises(SourceError, match=says):
            open_dataset(str(root), Options(groups=file))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[word]\na = 'b'", "unknown table 'word'"),
        ("[words", "not valid TOML"),
        (None, "can't be read"),
        ("words = 3", r"\[words\]: expected lines such as"),
        ("[words]\nscratch = 3", r"\[words\]: expected lines such as"),
        ("[words]\nscratch = ' '", r"\[words\]: expected lines such as"),
        ("product = 3", "'product': Expected"),
        ("[product]\ncup = 3", r"\[product\.cup\]: Expected"),
        ("[product.cup]\nwords = ['a']", r"\[product\.cup\.words\]: expected lines"),
        ("[product.cup]\ntypes = 'a'", r"\[product\.cup\]: types: expected a list"),
        ("[product.cup]\ncolour = 'a'", r"\[product\.cup\]: Expected"),
    ],
)
def test_a_wrong_file_of_words_says_what(tmp_path, text, says):
    file = tmp_path / "words.toml"
    if text:
        file.write_text(text)
    with pytest.raises(SourceError, match=says):
        Words(file=file)


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


def test_files_that_are_no_utf8_and_tables_that_are_none_are_told(root, tmp_path):
    trees.visa(root)
    table = root / "cashew" / "image_anno.csv"
    table.write_bytes("image,label,mask\nä".encode("latin-1"))
    with pytest.raises(SourceError, match=r"image_anno\.csv: is not UTF-8"):
        open_dataset(str(root)).product("cashew")
    table.write_text('image,label,mask\n"a"b,c,d\n')
    with pytest.raises(SourceError, match=r"image_anno\.csv:2: "):
        open_dataset(str(root)).product("cashew")
    groups = tmp_path / "groups.csv"
    groups.write_text("file,group\na,1\na,2\n")
    with pytest.raises(SourceError, match=r"groups\.csv:3: a is listed twice"):
        open_dataset(str(root), Options(groups=groups))


def test_a_file_of_words_wins(root, tmp_path):
    trees.mvtec(root)
    file = tmp_path / "words.toml"
    file.write_text('[words]\nscratch_head = "mark"\n[product.cable.words]\nscratch_head = "nick"\n')
    data = open_dataset(f"mvtec:{root}", Options(words=file))
    assert (data.product("bottle").words, data.product("cable").words) == (("mark",), ("nick",))
