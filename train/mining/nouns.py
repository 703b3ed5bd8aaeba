"""Nouns and noun phrases of a caption.

Tagger: TextBlob's PatternTagger, whose lexicon and rules ship inside the package (no download, unlike NLTK's
models or spaCy's English pipeline). It tags many verbs of captions as nouns ("a dog leaps", "a man rides").
The word lists below correct that; they come from the most frequent nouns of Flickr8k and COCO captions.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import cast

from textblob.en import tag
from textblob.en.inflect import singularize


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOP_NOUNS = _words(
    """
    side top bottom front back background foreground middle center centre edge corner end left right
    part piece pair couple bunch group lot number variety set row line kind type sort amount close up
    closeup close-up picture photo photograph photography image imagery view shot scene area place spot
    thing something someone somebody anyone everyone one other another each two three four five six
    seven eight nine ten way day night morning evening afternoon time distance air midair mid-air
    position look others while whilst in on at it them him her his its their jump moment action camera
    inside outside outdoors indoors use first second third direction color colour size shape style point
    round half pile slice blur object sample array mid galore variation assortment selection collection
    mixture game match race competition event activity practice training session trip tour adventure fun
    speed height length weight life world countryside re im dont the and with trick stunt order stage
    course attention focus help turn rest control balance pose motion conversation surrounding
    surroundings atmosphere ingredient combination addition topping filling portion serving celebration
    performance season weather daytime nighttime dusk dawn
    """
)
"""Words for places in the picture, the picture itself, amounts, events and indefinite persons."""

ALWAYS_VERBS = _words(
    """
    leap leaps chase chases smile smiles ride rides walk walks run runs jump jumps sit sits stand stands
    lay lays lie lies play plays hold holds wear wears throw throws catch catches pull pulls push pushes
    climb climbs swim swims kick kicks hit hits fight fights dance dances laugh laughs sleep sleeps eat
    eats carry carries perform performs race races travel travels pose poses bound bounds trot trots
    hike hikes dive dives fall falls struggle struggles scream screams hug hugs bolt bolts tackle
    tackles attempt attempts try tries rest rests wait waits talk talks gather gathers pet pets prepare
    prepares make makes get gets take takes enjoy enjoys show shows look looks lean leans crouch
    crouches squat squats wade wades peek peeks stare stares crawl crawls chew chews retrieve retrieves
    drift drifts blow blows spread spreads need needs approach approaches reach reaches dribble dribbles
    paddle paddles lick licks bite bites shake shakes grab grabs touch touches work works move moves
    pass passes cross crosses visit visits stop stops break breaks
    """
)
"""Verbs of captions whose noun is no thing that can be cut out."""

ALSO_VERBS = _words(
    """
    swing swings slide slides watch watches dress dresses drink drinks surf surfs wave sled sleds skate
    skates ski skis bike bikes splash splashes sign signs fly flies sail sails fish park parks bat bats
    spring springs dock docks kayak kayaks skateboard skateboards snowboard snowboards cook cooks guard
    guards kiss kisses crash crashes face faces head heads
    """
)
"""Nouns that are verbs right after a word for a person or animal: "a boy slides", but "a red slide"."""

AGENTS = _words(
    """
    man woman boy girl child kid baby toddler person people guy lady dog puppy cat horse bird couple
    group crowd team player rider biker cyclist bicyclist skateboarder snowboarder skier surfer swimmer
    climber hiker adult teenager teen youth male female men women children worker athlete runner boat
    friend family animal other another someone one two three mother father mom dad brother sister son
    daughter he she they who
    """
)

THINGS_IN_ING = _words(
    """
    building railing clothing icing awning ceiling ring wing king string painting swing frosting pudding
    dumpling dressing stuffing earring sibling duckling bedding sling opening crossing landing spring
    lightning herring wiring lining tubing scaffolding drawing carving covering flooring siding fencing
    plaything lodging
    """
)
"""Words in -ing that name things; all others count as verbs."""

ING_COMPOUNDS = {
    "dining": _words("table room"),
    "living": _words("room"),
    "swimming": _words("pool"),
    "parking": _words("lot meter garage space"),
    "cutting": _words("board"),
    "rocking": _words("chair horse"),
    "vending": _words("machine"),
    "washing": _words("machine"),
    "shopping": _words("cart bag mall"),
    "fishing": _words("pole rod boat net"),
    "baking": _words("sheet tray dish pan"),
    "frying": _words("pan"),
    "climbing": _words("wall gym"),
    "bathing": _words("suit"),
    "wedding": _words("dress cake"),
    "mixing": _words("bowl"),
    "serving": _words("dish plate"),
}

WITHOUT_SINGULAR = _words(
    """
    clothes jeans shorts pants trousers glasses sunglasses eyeglasses goggles scissors tongs tights
    grass glass dress bus gas christmas xmas swimwear fries brussels overalls pajamas pyjamas leggings
    sweatpants khakis binoculars headphones species series molasses hummus asparagus
    """
)
"""Words whose singular is the same."""

SINGULAR = {
    **{word: word for word in sorted(WITHOUT_SINGULAR)},
    "buses": "bus",
    "skis": "ski",
    "leaves": "leaf",
    "men": "man",
    "women": "woman",
    "people": "person",
    "children": "child",
    "cookies": "cookie",
    "brownies": "brownie",
    "hoodies": "hoodie",
    "veggies": "veggie",
    "movies": "movie",
    "smoothies": "smoothie",
    "geese": "goose",
    "sheep": "sheep",
    "shoes": "shoe",
    "canoes": "canoe",
    "horses": "horse",
    "bushes": "bush",
    "waves": "wave",
    "caves": "cave",
    "olives": "olive",
    "gloves": "glove",
    "stairs": "stairs",
    "business": "business",
}
"""Words that the package's rules get wrong, and words without a singular."""

_WORD = re.compile(r"[a-z][a-z'-]*[a-z]$")
_NOUN_TAGS = frozenset({"NN", "NNS", "NNP", "NNPS"})


@lru_cache(maxsize=1)
def _tagger() -> Callable[..., list[tuple[str, str]]]:
    """The package's tagger, its lexicon loaded."""
    with warnings.catch_warnings():
        # The package reads its lexicon from files that it leaves to the garbage collector to close.
        warnings.simplefilter("ignore", ResourceWarning)
        tag("dogs run")
    return cast(Callable[..., list[tuple[str, str]]], tag)


@lru_cache(maxsize=100_000)
def singular(word: str) -> str:
    """The singular of a noun: "mice" -> "mouse", "jeans" -> "jeans"."""
    if word in SINGULAR:
        return SINGULAR[word]
    if word.endswith(("ss", "us", "is")):
        return word
    return str(singularize(word))


def caption_nouns(caption: str) -> tuple[str, ...]:
    """The nouns and compound nouns of a caption, singular, without stop-nouns, in order of appearance.

    A run of nouns gives its last three words and its head: "tennis balls" gives "tennis ball" and "ball".

    >>> caption_nouns("Two brown dogs run after tennis balls on the grass.")
    ('dog', 'tennis ball', 'ball', 'grass')
    """
    found: dict[str, None] = {}
    run: list[str] = []
    before = ""
    text = re.sub(r"[^\w\s'-]", " . ", caption.lower()).replace("'s ", " ")
    for word, kind in [*_tagger()(text, tokenize=True), (".", ".")]:
        if _is_noun(word, kind, before):
            # A word in -ing before a noun may be part of its name ("dining table").
            if not run and singular(word) in ING_COMPOUNDS.get(before, ()):
                run.append(before)
            run.append(singular(word) if kind.endswith("S") or word in SINGULAR else word)
        else:
            _close(run, found)
            run = []
        before = word
    return tuple(found)


def _is_noun(word: str, kind: str, before: str) -> bool:
    if kind not in _NOUN_TAGS or not _WORD.match(word) or word in ALWAYS_VERBS:
        return False
    if word.endswith("ing") and word not in THINGS_IN_ING:
        return False
    return not (word in ALSO_VERBS and _is_agent(singular(before)))


def _is_agent(noun: str) -> bool:
    return noun in AGENTS or noun.endswith(("er", "or", "ist"))


def _close(run: list[str], found: dict[str, None]) -> None:
    """Add the nouns that a finished run of nouns names."""
    if not run or run[-1] in STOP_NOUNS:
        return
    compound = " ".join(word for word in run[-3:] if word not in STOP_NOUNS)
    found.setdefault(compound)
    found.setdefault(run[-1])
