"""Word lists of the text-rendering prompts: what can carry text, where that stands, and what it says.

A phrase template has one word per slot, so its length is the number of its words. All lists are our own.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SLOTS = {
    "name": _words(
        "Ada Ben Clara David Elena Felix Grace Hugo Iris Jonas Kara Leo Mira Noah Olga Paul Ruth Simon Tara "
        "Victor Wanda Yusuf Zoe Amir Bella Carlos Dana Erik"
    ),
    "place": _words(
        "Ashford Birchwood Cedarville Dunmore Eastbrook Fairhaven Glenrock Harborview Ivydale Kingsport "
        "Lakewood Maplewood Northgate Oakridge Pinehurst Queensbury Riverton Silverlake Thornhill Upland "
        "Vernon Westfield Willowbrook Yarrow"
    ),
    "adj": _words(
        "Golden Silver Crimson Blue Quiet Wild Little Old Hidden Lucky Bright Velvet Copper Rustic Gentle "
        "Frozen Secret Brave Distant Amber Broken Silent Green Lonely Magic"
    ),
    "noun": _words(
        "Lantern Fox River Kettle Garden Anchor Feather Mountain Compass Willow Sparrow Harbor Candle Meadow "
        "Island Tiger Window Orchard Castle Comet Forest Bridge Whale Clock Lighthouse Rose Mirror Dragon"
    ),
    "shop": _words(
        "Bakery Bookshop Florist Cafe Pharmacy Tailor Butcher Deli Gallery Barber Hardware Grocery Toys Antiques"
    ),
    "good": _words("Bread Coffee Flowers Honey Cheese Apples Pies Soup Tea Lemonade Cookies Berries Pancakes Tomatoes"),
    "service": _words("Gas Food Hotel Parking Camping Lodging Coffee"),
    "feature": _words("Bridge Station Park Museum Library Harbor Market Beach Airport Castle Zoo Stadium"),
    "n": _words("2 3 4 5 6 7 8 9 10 12 15 18 20 24 30 35 42 50 60 75 80 99"),
    "date": _words("1 2 3 4 5 6 7 8 9 10 11 12 14 15 17 18 20 21 22 24 25 27 28"),
    "hour": _words("6:15 7:30 8:05 9:20 9:45 10:10 11:55 12:40 14:25 16:50 18:35 21:10"),
    "month": _words("January February March April May June July August September October November December"),
    "activity": _words("Swimming Fishing Smoking Parking Cycling Camping Diving Climbing Skating Littering Running"),
    "verb": _words("Dance Travel Dream Read Explore Create Wander Paint Bake Sing Surf Climb Laugh Skate Sail Write"),
    "mood": _words("Curious Kind Wild Humble Calm Hungry Brave Positive Weird Strong Cozy Awake"),
    "thing": _words("Door Gate Window Lid Curtain Fridge Drawer Cabinet"),
    "item": _words("Exhibits Animals Paintings Flowers Statues Instruments Books Lights"),
    "day": _words("Birthday Anniversary Holidays Easter Graduation Retirement Halloween Diwali"),
}
"""Slot of a template to the words it may hold."""

PHRASES = {
    "shop": (
        "{shop}", "Open", "Sale", "{adj} {shop}", "Fresh {good}", "The {adj} {noun}", "{name} & Sons",
        "{adj} {noun} {shop}", "{name} and {name} {shop}", "Fresh {good} Every Morning", "{n} Kinds of {good}",
        "Fresh {good} Sold Here Daily", "The {adj} {noun} of {place}", "Half Price {good} Until {month}",
        "Fresh {good} and {good} Sold Here", "All {good} Half Price This {month}", "The Best {good} in All {place}",
    ),
    "road": (
        "{place}", "Stop", "Slow", "Detour", "{place} {feature}", "{feature} Closed", "{place} {n} Miles",
        "Welcome to {place}", "Next {service} {n} Miles", "No {activity} After Dark", "Road Closed Until {month}",
        "{feature} Closed Until {month} {date}", "Turn Left for {place} {feature}", "{service} and {service} Next Exit",
        "The Road to {place} Is Closed", "{service} and {service} in {n} Miles", "Welcome to the Town of {place}",
    ),
    "notice": (
        "Exit", "Closed", "Quiet", "Private", "Reserved", "No {activity}", "Wet Paint", "Room {n}",
        "{feature} Closed Today", "Please Knock First", "No {activity} Here",
        "Please Close the {thing}", "No {activity} or {activity}",
        "Do Not Touch the {item}", "Back in {n} Minutes", "Please Knock and Wait Outside",
        "Keep This {thing} Closed at Night", "No {activity} Between {month} and {month}",
        "Ask {name} Before Opening the {thing}",
    ),
    "title": (
        "{noun}", "{place}", "{adj} {noun}", "The {noun}", "The {adj} {noun}", "Return to {place}", "{name} in {place}",
        "The {noun} of {place}", "Letters from {place}", "{name} Comes to {place}", "The {adj} {noun} of {place}",
        "{name} and the {adj} {noun}",
        "The {noun} and the {adj} {noun}", "{n} Days in the {adj} {noun}", "The Last {adj} {noun} of {place}",
    ),
    "greeting": (
        "Congratulations", "Welcome", "Thanks", "Happy {day}", "Welcome {name}", "Thanks {name}", "Happy {day} {name}",
        "Well Done {name}", "Welcome Home Dear {name}", "Thank You Dear {name}", "Good Luck in {place}",
        "Good Luck {name} and {name}", "Happy {day} from All of {place}", "{n} Years of {name} and {name}",
        "Best Wishes to {name} and {name}", "See You in {place} Dear {name}",
    ),
    "slogan": (
        "{verb}", "{mood}", "Stay {mood}", "Just {verb}", "Born to {verb}", "{verb} and {verb}", "Powered by {good}",
        "{verb} More Worry Less", "{good} First Questions Later", "Life Is Better with {good}",
        "{verb} {verb} {verb} and Repeat", "Eat {good} and Stay {mood}", "Keep Calm and {verb} All Day",
        "{verb} Like the {adj} {noun} Does", "Stay {mood} and Eat More {good}",
    ),
    "display": (
        "Boarding", "Delayed", "{hour}", "Gate {n}", "Platform {n}", "{place} {hour}", "Now Serving {n}",
        "{place} On Time", "Train to {place} Delayed", "Bus {n} to {place}", "Flight {n} to {place} Boarding",
        "{place} Express Leaves at {hour}", "Next Train to {place} at {hour}", "Flight to {place} Leaves Gate {n}",
    ),
}  # fmt: skip
"""Kind of text to its phrase templates, of one to six words each."""

CARRIERS = {
    "shop": (
        ("a neon sign", "above the entrance of a small shop", "outdoor"),
        ("a hand-painted wooden sign", "hanging from an old brick building", "outdoor"),
        ("a striped awning", "over a storefront", "outdoor"),
        ("a chalkboard", "on the sidewalk in front of a shop", "outdoor"),
        ("a market stall banner", "above crates of fruit", "outdoor"),
        ("a cardboard price tag", "on a crowded shelf", "indoor"),
        ("a brown paper bag", "on a wooden counter", "indoor"),
    ),
    "road": (
        ("a green road sign", "beside an empty highway", "outdoor"),
        ("a weathered wooden signpost", "at a fork in a forest path", "outdoor"),
        ("a large billboard", "above a busy road", "outdoor"),
        ("a yellow warning sign", "on a winding mountain road", "outdoor"),
        ("a carved stone marker", "at the edge of a village", "outdoor"),
    ),
    "notice": (
        ("a metal plaque", "on a garden gate", "outdoor"),
        ("a wooden board", "at the entrance of a park", "outdoor"),
        ("a laminated notice", "taped to a glass door", "indoor"),
        ("a handwritten note", "pinned to a cork board", "indoor"),
        ("a small brass sign", "on an office door", "indoor"),
    ),
    "title": (
        ("a leather-bound book", "on a stack of old novels", "indoor"),
        ("a film poster", "in the lobby of a cinema", "indoor"),
        ("a vinyl record sleeve", "leaning against a turntable", "indoor"),
        ("a children's picture book", "on a soft rug", "indoor"),
        ("a theater poster", "on a brick wall", "outdoor"),
    ),
    "greeting": (
        ("a chocolate birthday cake", "on a table set for a party", "indoor"),
        ("a folded greeting card", "beside a bunch of tulips", "indoor"),
        ("a colorful paper banner", "strung across a living room", "indoor"),
        ("a large cloth banner", "between two trees in a garden", "outdoor"),
        ("a red balloon", "tied to a garden chair", "outdoor"),
    ),
    "slogan": (
        ("a white T-shirt", "on a wooden hanger", "indoor"),
        ("a ceramic coffee mug", "on a cluttered desk", "indoor"),
        ("a canvas tote bag", "hanging from a hook", "indoor"),
        ("a round sticker", "on the lid of a laptop", "indoor"),
        ("a spray-painted mural", "on the wall of a narrow alley", "outdoor"),
        ("a baseball cap", "on a park bench", "outdoor"),
    ),
    "display": (
        ("a digital departure board", "in a crowded station hall", "indoor"),
        ("a smartphone screen", "on a kitchen table", "indoor"),
        ("a smartwatch", "on the wrist of a traveler", "indoor"),
        ("a printed ticket", "on top of a suitcase", "indoor"),
        ("an LED display", "above a railway platform", "outdoor"),
    ),
}
"""Kind of text to (what carries it, where that is, indoor or outdoor)."""

SCENES = {
    "outdoor": (
        "at sunrise", "at dusk", "at night", "on a foggy morning", "on a rainy evening", "on a snowy afternoon",
        "under a clear blue sky", "under a stormy sky", "in warm autumn light", "in bright summer sun",
        "with puddles reflecting the light", "with a cat sitting nearby", "with people walking past",
        "with mountains in the distance", "with ivy growing around it",
    ),
    "indoor": (
        "in soft morning light", "in warm lamplight", "in dim light", "in the light of a large window",
        "on a gray winter day", "late at night", "with a potted fern in the background",
        "with a blurred background", "with rain running down the windows", "with a sleeping cat nearby",
        "with dust floating in the light", "with a cup of tea beside it", "with a pair of glasses nearby",
        "with long evening shadows",
    ),
}  # fmt: skip
STYLES = (
    "", "a photo of ", "a close-up of ", "a realistic photograph of ", "a watercolor painting of ",
    "a detailed illustration of ", "a vintage postcard of ", "a wide-angle photo of ",
)  # fmt: skip
READS = ("that reads", "that says", "showing the {words}", "with the {words}", "with the text", "bearing the {words}")
