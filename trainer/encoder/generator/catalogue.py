"""Which surfaces there are, what people call them, and which defects each can have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainer.encoder.generator import boards, defects, objects, part_defects, structured, textures
from trainer.encoder.generator.canvas import Rng


@dataclass(frozen=True)
class Family:
    """A kind of surface.

    Attributes:
        draw: Rng -> image, or (image, silhouette, background) for objects; None for circuit tracks.
        nouns: what people call it, for captions.
        structured: whether it has an order that `bent` or `misplaced` can disturb.
        weight: how often it is drawn.
    """

    draw: Callable[[Rng], Any] | None
    nouns: tuple[str, ...]
    structured: bool = False
    weight: float = 1.0


def _f(
    draw: Callable[[Rng], Any] | None, *nouns: str, structured: bool = False, weight: float = 1.0
) -> Family:
    return Family(draw, nouns, structured, weight)


FAMILIES: dict[str, Family] = {
    "brushed": _f(
        textures.brushed,
        "brushed metal",
        "brushed steel",
        "aluminium sheet",
        "metal plate",
        "stainless steel",
    ),
    "casting": _f(textures.casting, "casting", "cast iron", "cast metal part", "metal casting"),
    "concrete": _f(textures.concrete, "concrete", "cement wall", "stone surface", "plaster"),
    "leather": _f(textures.leather, "leather", "leather hide", "artificial leather"),
    "twill": _f(textures.twill, "carbon fibre", "composite", "carbon weave", "twill", structured=True),
    "knit": _f(textures.knit, "knitted textile", "knitwear", "knitted cloth", structured=True),
    "speckle": _f(textures.speckle, "granite", "speckled tile", "stone tile", "linoleum"),
    "rubber": _f(textures.rubber, "rubber", "rubber mat", "tyre", "rubber seal"),
    "glass": _f(textures.glass, "glass", "glass panel", "screen", "glossy panel"),
    "plastic": _f(textures.plastic, "plastic", "plastic housing", "moulded plastic", "plastic cover"),
    "painted": _f(textures.painted, "painted metal", "car body", "painted panel", "coated sheet"),
    "cardboard": _f(textures.cardboard, "cardboard", "paper", "carton", "packaging"),
    "solar": _f(textures.solar, "solar cell", "photovoltaic cell", "solar panel", "wafer", weight=2.5),
    "strip": _f(textures.strip, "steel strip", "rolled steel", "hot rolled steel", "metal strip", weight=2.0),
    "ferrite": _f(textures.ferrite, "magnetic tile", "ferrite tile", "ground metal", "magnet", weight=2.5),
    "asphalt": _f(textures.asphalt, "road", "asphalt", "pavement", "road surface", weight=1.5),
    "ceramic": _f(textures.ceramic, "ceramic", "glazed tile", "porcelain", "ceramic part", weight=1.5),
    "turned": _f(textures.turned, "turned part", "machined face", "lathe part", "shaft"),
    "orange_peel": _f(textures.orange_peel, "powder coat", "textured plastic", "grained plastic"),
    "galvanised": _f(textures.galvanised, "galvanised steel", "zinc sheet", "polycrystalline wafer"),
    "bricktile": _f(
        structured.bricktile, "brick wall", "ceramic tiles", "tiled floor", "paving", structured=True
    ),
    "perforated": _f(
        structured.perforated,
        "perforated plate",
        "perforated sheet",
        "punched metal",
        "sieve",
        structured=True,
    ),
    "circuit": _f(
        structured.circuit,
        "circuit board",
        "pcb",
        "printed circuit board",
        "electronic board",
        structured=True,
    ),
    "zipper": _f(structured.zipper, "zipper", "zip fastener", structured=True),
    "stitched": _f(structured.stitched, "stitched leather", "seam", "upholstery", structured=True),
    "label": _f(structured.label, "label", "printed label", "packaging print", structured=True),
    "keycaps": _f(structured.keycaps, "keyboard", "keypad", "button panel", structured=True),
    "fins": _f(structured.fins, "heat sink", "corrugated sheet", "louvre", "grille", structured=True),
    "wicker": _f(structured.wicker, "wicker", "basket weave", "cane", structured=True),
    "onyx": _f(structured.onyx, "onyx", "agate", "natural stone", "travertine"),
    "moulding": _f(
        structured.moulding, "moulded block", "chocolate", "wafer biscuit", "tread", structured=True
    ),
    "pins": _f(structured.pins, "connector", "pin header", "ball grid", "brush", structured=True),
    "weld": _f(structured.weld, "weld", "weld seam", "weld bead"),
    "panel": _f(
        structured.panel, "assembled panel", "machine cover", "metal cover", "casing", structured=True
    ),
    "ribbon": _f(structured.ribbon, "cable harness", "hoses", "rods", "wires", structured=True),
    "crossing": _f(structured.crossing, "frame", "ribbed part", "wired part", structured=True),
    "ground_edge": _f(structured.ground_edge, "edge of a part", "sheet edge", "plate edge", weight=1.5),
    "bands": _f(structured.bands, "sheet", "plain sheet", "panel", weight=1.5),
    "tracks": _f(None, "circuit board", "pcb", "pcb layer", "copper tracks", structured=True, weight=4.0),
    "nut": _f(objects.nut, "hazelnut", "nut", "walnut", "almond", structured=True),
    "sprocket": _f(objects.sprocket, "sprocket", "cam", "rotor", structured=True),
    "rack": _f(objects.rack, "toothed rack", "saw blade", "comb", structured=True),
    "screw": _f(objects.screw, "screw", "bolt", "threaded screw", structured=True),
    "button": _f(objects.button, "button", "moulded cap", "embossed tablet", structured=True),
    "bottle": _f(objects.bottle, "bottle", "bottle neck", "cap", "lid", structured=True),
    "cable": _f(objects.cable, "cable", "wire", "cable cross section", structured=True),
    "chip": _f(
        objects.chip, "transistor", "chip", "electronic component", "integrated circuit", structured=True
    ),
    "bracket": _f(objects.bracket, "bracket", "stamped part", "metal bracket"),
    # Watched while training, never trained on.
    "terrazzo": _f(textures.terrazzo, "terrazzo", "terrazzo floor", "composite stone"),
    "carpet": _f(textures.carpet, "carpet", "rug", "felt"),
    "washer": _f(objects.washer, "washer", "metal ring", "flange", "metal nut", structured=True),
    # Held out: only the report meets them.
    "wood": _f(textures.wood, "wood", "wooden board", structured=True),
    "marble": _f(textures.marble, "marble", "marble slab"),
    "fabric": _f(textures.fabric, "fabric", "woven fabric", structured=True),
    "mesh": _f(textures.mesh, "wire mesh", "grid", structured=True),
    "gear": _f(objects.gear, "gear", "gear wheel", structured=True),
    "pill": _f(objects.pill, "pill", "capsule", structured=True),
}
HELD_OUT_FAMILIES = ("wood", "marble", "fabric", "mesh", "gear", "pill")
VALIDATION_FAMILIES = ("terrazzo", "carpet", "washer")
TRAIN_FAMILIES = tuple(name for name in FAMILIES if name not in HELD_OUT_FAMILIES + VALIDATION_FAMILIES)

# Every class with the looks it can take; the order is the order of classes everywhere.
DEFECTS: dict[str, tuple[defects.Defect, ...]] = {
    "scratch": (defects.scratch, defects.scratch, part_defects.strand),
    "crack": (defects.crack, defects.crack, defects.crack, part_defects.dark_area),
    "hole": (defects.hole,),
    "dent": (defects.dent,),
    "stain": (defects.stain,),
    "bent": (part_defects.bent,),
    "missing": (part_defects.missing,),
    "cut": (defects.cut,),
    "spot": (defects.spot, defects.spot, part_defects.tinted),
    "scuff": (defects.scuff,),
    "particles": (defects.particles,),
    "thread": (defects.thread,),
    "burn": (defects.burn,),
    "blowhole": (part_defects.blowhole,),
    "inclusion": (part_defects.inclusion,),
    "patches": (part_defects.patches,),
    "uneven": (part_defects.uneven,),
    "fray": (defects.fray,),
    "mouse-bite": (),
    "open-circuit": (),
    "short-circuit": (),
    "spur": (),
    "spurious-copper": (),
    "rust": (defects.rust,),
    "glue": (defects.glue,),
    "liquid": (defects.liquid,),
    "broken": (part_defects.broken,),
    "misplaced": (part_defects.misplaced,),
    "imprint": (part_defects.imprint,),
    "squeeze": (part_defects.squeeze,),
    "burr": (defects.burr,),
    "bubble": (part_defects.bubble,),
    "rough": (defects.rough,),
    "wear": (defects.wear,),
    "break": (part_defects.break_,),
    "foreign": (part_defects.foreign,),
    "melt": (part_defects.melt,),
}
DEFECT_NAMES = tuple(DEFECTS)
CLASS_LABEL = {name: index + 1 for index, name in enumerate(DEFECT_NAMES)}
_ORDER_DEFECTS = ("bent", "misplaced", "squeeze")
ON_TRACKS = (*boards.TRACK_DEFECTS * 3, "scratch", "stain", "spot", "cut", "particles")
# Plant surfaces carry their own defects more often than anything at random.
TYPICAL = {
    "ferrite": ("blowhole", "crack", "fray", "uneven", "break"),
    "ceramic": ("blowhole", "crack", "break", "uneven", "fray"),
    "strip": ("inclusion", "patches", "scratch"),
    "solar": ("crack", "crack", "scratch", "patches", "uneven", "missing"),
    "asphalt": ("crack", "crack", "hole", "stain"),
    "galvanised": ("patches", "scratch", "stain", "rust"),
}


def defects_for(family: str) -> tuple[str, ...]:
    """Classes that can occur on a family."""
    if family == "tracks":
        return tuple(dict.fromkeys(ON_TRACKS))
    structured_ = FAMILIES[family].structured
    return tuple(
        name for name, looks in DEFECTS.items() if looks and (structured_ or name not in _ORDER_DEFECTS)
    )
