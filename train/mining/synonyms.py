"""Which COCO category a caption's noun means, to judge mined pairs where COCO's truth is known."""

from __future__ import annotations

from collections.abc import Sequence

_SYNONYMS = {
    "person": """person people man woman boy girl child kid baby toddler lady guy gentleman adult player
        couple skateboarder surfer skier rider snowboarder batter catcher pitcher umpire worker cyclist biker
        bicyclist motorcyclist chef cook policeman officer crowd female male teenager swimmer spectator
        pedestrian bride groom mother father goalie skater family""",
    "bicycle": "bicycle bike",
    "motorcycle": "motorcycle motorbike scooter moped",
    "airplane": "airplane plane jet aircraft airliner aeroplane jetliner",
    "car": "car taxi suv sedan",
    "train": "train locomotive",
    "truck": "truck pickup lorry",
    "boat": "boat ship sailboat canoe kayak ferry",
    "fire hydrant": "hydrant",
    "stop sign": "stop-sign",
    "traffic light": "stoplight traffic-light",
    "bird": "bird seagull pigeon duck goose parrot",
    "cat": "cat kitten kitty",
    "dog": "dog puppy",
    "horse": "horse pony",
    "sheep": "sheep lamb",
    "cow": "cow bull calf cattle ox",
    "bear": "bear",
    "handbag": "handbag purse",
    "suitcase": "suitcase luggage",
    "tie": "tie necktie",
    "skis": "ski skis",
    "sports ball": "ball",
    "cup": "cup mug",
    "hot dog": "hotdog",
    "donut": "donut doughnut",
    "couch": "couch sofa",
    "potted plant": "houseplant",
    "dining table": "table",
    "tv": "tv television",
    "laptop": "laptop",
    "cell phone": "phone cellphone smartphone",
    "refrigerator": "refrigerator fridge",
    "teddy bear": "teddy",
    "hair drier": "hairdryer",
}
_PHRASES = {"teddy bear": "teddy bear", "hot dog": "hot dog", "wine glass": "wine glass"}


def coco_category(noun: str, categories: Sequence[str]) -> str | None:
    """The category a noun means, by the whole phrase or by its last word; None if no category.

    >>> coco_category("tennis player", ["person", "tennis racket"])
    'person'
    """
    if noun in categories:
        return noun
    if noun in _PHRASES:
        return _PHRASES[noun]
    head = noun.split()[-1]
    for category, words in _SYNONYMS.items():
        if head in words.split():
            return category
    return head if head in categories else None
