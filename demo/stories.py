"""The stories of tiny-chat: hand-made details for known heroes, one open story for every other hero.

A story is decided by its hero alone, so that a greedy answer has no close second.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hero:
    """One known hero: ``noun`` is what people ask for, ``told`` is how the story speaks of it."""

    noun: str
    plural: str
    told: str
    name: str
    place: str
    wish: str
    friend: str
    night: str  # what the night of the story looks like


HEROES: tuple[Hero, ...] = (
    Hero("fox", "foxes", "a little fox", "Rusty", "at the edge of a green wood", "to count all the stars",
         "an old hedgehog", "the sky was clear and full of stars"),
    Hero("owl", "owls", "a young owl", "Olivia", "in a hollow tree", "to see the sun rise",
         "a cheerful lark", "the moon hung round and bright above the hill"),
    Hero("robot", "robots", "a small robot", "Bolt", "in a quiet workshop", "to learn a song",
         "a grey mouse", "the rain sang on the roof"),
    Hero("dragon", "dragons", "a shy dragon", "Ember", "in a cave by the sea", "to find a friend",
         "a brave fisher girl", "a storm blew over the sea"),
    Hero("cat", "cats", "a curious cat", "Minka", "in a house by the harbour", "to sail on a boat",
         "an old sailor", "the harbour lay still under the moon"),
    Hero("dog", "dogs", "a loyal dog", "Bruno", "on a farm in the hills", "to find a lost lamb",
         "a wise sheep", "a thick fog lay over the hills"),
    Hero("mouse", "mice", "a tiny mouse", "Pip", "under a bakery", "to bake the biggest cake",
         "a kind baker", "the whole street smelled of warm bread"),
    Hero("turtle", "turtles", "a slow turtle", "Tilda", "by a long river", "to see the sea",
         "a friendly heron", "the river shone like silver"),
    Hero("star", "stars", "a small star", "Lumi", "high above the clouds", "to shine for somebody",
         "a child who could not sleep", "the night was very dark"),
    Hero("boat", "boats", "a wooden boat", "Marina", "in a little bay", "to cross the wide sea",
         "a singing whale", "the waves were high and the wind was loud"),
    Hero("princess", "princesses", "a clever princess", "Elena", "in a castle of stone",
        "to build a flying machine",
         "a blacksmith", "the towers of the castle were covered with snow"),
    Hero("bear", "bears", "a sleepy bear", "Bruna", "in a mountain forest", "to see the first snow",
         "a busy squirrel", "big white flakes began to fall"),
    Hero("rabbit", "rabbits", "a quick rabbit", "Hazel", "in a field of clover", "to win a race",
         "a patient snail", "fireflies danced over the field"),
    Hero("girl", "girls", "a girl with red boots", "Lotta", "in a village by a lake", "to plant a garden",
         "a friendly gardener", "a warm rain fell on the village"),
    Hero("boy", "boys", "a boy with a yellow kite", "Jonas", "in a town on a hill", "to fly with the birds",
         "a wise old crow", "a soft wind came over the town"),
    Hero("browser", "browsers", "a small browser", "Webster", "on a busy computer",
        "to run a model of its own",
         "a big strong server", "the network was quiet and the lights blinked softly"),
    Hero("server", "servers", "a tired server", "Atlas", "in a cold white room", "to get some help",
         "a little browser far away", "a thousand questions came in at once"),
    Hero("king", "kings", "a lonely king", "Arthur", "in a silent palace", "to hear somebody laugh",
         "a funny cook", "a great fire burned in the hall"),
    Hero("train", "trains", "a little blue train", "Clara", "at the end of a long line",
        "to climb the highest mountain",
         "a strong old engine", "frost lay on the rails"),
    Hero("cloud", "clouds", "a small white cloud", "Nimbus", "over a dry land", "to make the flowers bloom",
         "a gentle wind", "the hot day came to its end"),
)  # fmt: skip

_PLOTS: tuple[str, ...] = (
    "Once upon a time there was {told} called {name} who lived {place}. {name} wanted {wish}, but did not "
    "know how. "
    "One night, when {night}, {name} met {friend}. Together they tried again and again until it worked. "
    "From that day on they were the best of friends.",
    "Once upon a time, {place}, there lived {told} called {name}. Every day {name} dreamed of one thing: "
    "{wish}. "
    "One night {night}. Then {friend} came by and said: I will help you. It took them until the morning, "
    "and when it was done they both laughed with joy.",
    "Once upon a time {told} called {name} lived {place}. All the others laughed, because {name} wanted "
    "{wish}. "
    "Only {friend} did not laugh. One night, when {night}, the two of them set out in secret. "
    "In the morning the dream had come true, and nobody laughed at {name} again.",
)

_OPEN_PLOT = (
    "Once upon a time, early in the morning, {hero} set out to find the end of the rainbow. "
    "The way was long, but a kind stranger showed where to go. There was no gold at the end, only new "
    "friends. "
    "And {hero} said that friends were better than gold."
)

OPEN_HEROES: tuple[str, ...] = (
    "apple", "artist", "astronaut", "baker", "balloon", "banana", "bat", "bee", "bicycle", "butterfly",
    "button", "camel", "candle", "car", "carpenter", "castle", "chair", "chicken", "clock", "clown", "coin",
    "computer", "cow", "crab", "cup", "dancer", "detective", "dinosaur", "doctor", "dolphin", "donkey",
    "door", "duck", "eagle", "elephant", "elf", "fairy", "farmer", "feather", "fish", "flower",
    "flying carpet", "frog", "ghost", "giant", "giraffe", "goat", "goblin", "guitar", "hat", "hedgehog",
    "horse", "island", "jellyfish", "kangaroo", "key", "kitten", "knight", "ladder", "lamp", "lion",
    "lost sock", "magic pot", "mermaid", "monkey", "monster", "moon", "mountain", "mushroom", "octopus",
    "old man", "old woman", "onion", "panda", "parrot", "pencil", "penguin", "piano", "pig", "pirate",
    "planet", "pony", "potato", "prince", "puppy", "queen", "river", "rocket", "sailor", "scientist",
    "shark", "sheep", "shoe", "snail", "snowman", "soldier", "spaceship", "spider", "squirrel", "sun",
    "swan", "table", "teacher", "teapot", "tiger", "tower", "toy", "tractor", "tree", "troll", "unicorn",
    "violin", "whale", "wind", "witch", "wizard", "wolf", "worm", "zebra", "tooth", "sandwich", "window",
    "lighthouse", "submarine",
)  # fmt: skip

WHOLE_STORY_TOLD = "That was the whole story. Shall I tell you another one?"
NOTHING_TO_CONTINUE = "There is nothing to continue yet. Shall I tell you a story?"


def story_of(index: int) -> str:
    """The story of the known hero ``HEROES[index]``."""
    hero = HEROES[index]
    return _PLOTS[index % len(_PLOTS)].format(
        told=hero.told, name=hero.name, place=hero.place, wish=hero.wish, friend=hero.friend, night=hero.night
    )


def open_story(hero: str) -> str:
    """The story of any other hero, e.g. ``"a teapot"``; the words are taken over as the person typed them."""
    return _OPEN_PLOT.format(hero=hero)


STORY_PATTERNS: tuple[str, ...] = (
    "[tell|read|write] [me |us ||my child |my kids ]a [|short |little |nice |funny |good |bedtime |small "
    "]story about {hero}",
    "[can|could|would|will] you [please |]tell [me|us] a [|short |little |nice |bedtime ]story about {hero}?",
    "[can|could] you [make up|write|invent|think of] a [|short |new ]story about {hero}?",
    "[i want|i would like|i'd like|i want to hear|i would like to hear|give me|we want|let me hear] a [|"
    "short |bedtime ]story about {hero}",
    "[do you know|have you got|do you have|is there] [a|any] [story|tale] [about|with] {hero}?",
    "a story about {hero}[| please|, please]",
    "a [short|little] tale about {hero}",
    "[make up|write|invent|tell me] a [story|tale|fairy tale] [about|with] {hero}[| in it]",
    "[story|story time|storytime|tale]: {hero}",
    "tell [me|us] about {hero} in a story",
    "once upon a time there was {hero}[, go on with the story|, what happened next]?",
    "[any chance of|how about|what about|could we have|may i have|can i get|can we hear] a [|little |"
    "short ]story [about|with] {hero}?",
    "i was hoping [for|to hear] a [story|tale] [about|with] {hero}",
    "[my daughter wants|my son wants|the kids want|my little one would love|we are in the mood for] a "
    "story about {hero}",
    "would you mind telling [me|us] a [story|tale] [about|with] {hero}?",
    "[let's hear|surprise me with|share|narrate|begin|spin|start] a [tale|story] about {hero}",
    "[bedtime story|fairy tale|fable|storybook tale] [with|about|starring|featuring] {hero}[, please|]",
    "i [feel like|fancy|could do with|am in the mood for] a story [about|with] {hero}",
    "[story|tale|one story] with {hero} in it[, please|]",
)  # fmt: skip
ANY_STORY_PATTERNS: tuple[str, ...] = (
    "[tell|read|write] [me |us ||my child |my son |the kids ]a [|short |little |nice |funny |good |bedtime |"
    "small ]story",
    "[can|could|would|will] you [please |]tell [me|us] a [|short |little |nice |bedtime ][story|tale]?",
    "[i want|i would like|i'd like|i want to hear|give me|we want] a [|short |bedtime ][story|tale]",
    "[do you know|have you got|do you have] [a|any|some] [story|stories|tales]?",
    "[story|a story|story time|a story please|story please]",
    "[make up|invent|think up] a [story|tale|fairy tale] [for me|for us|for my kids|for my son|]",
    "tell me [something nice|a fairy tale|a bedtime story|any story|some story]",
    "i am bored, tell me a story",
    "i could [use|do with] a [|nice |good ]story",
    "[any chance of|how about|what about|fancy telling me|is there time for] a [story|tale|bedtime story]?",
    "would you mind telling [me|us] a story?",
    "i was hoping [for|you could tell me|to hear] a [story|tale]",
    "[my kids want|the children would like|my daughter wants|we are all waiting for] a story",
    "i [can't sleep|want to fall asleep|am in bed|need a break], [tell me|read me|how about] a story",
    "got any [good |]stories [for me|for us|]?",
    "[surprise me with|start|begin|entertain me with|spin me|let me hear] [a story|a tale|one of your "
    "stories]",
    "[what|which] stories [do you know|can you tell|have you got]?",
)  # fmt: skip
ANOTHER_STORY_PATTERNS: tuple[str, ...] = (
    "[|tell me |i want |can i have |give me ]another [one|story]",
    "[one more|one more story|next story|a different story|a new story|tell me one more]",
    "do you know another [one|story]?",
    "[let's hear|may i hear|how about|can we have] [another|one more|a different one|a second story]?",
    "[i liked that|i enjoyed that|that was short|not that one], [tell me another|another one|one more story]",
    "and now [another|a different|a new] [story|one|tale]",
    "[have you got|do you have|are there] [any more|more|any other] [stories|tales]?",
)
CONTINUE_PATTERNS: tuple[str, ...] = (
    "continue", "go on", "continue", "go on", "please continue", "please go on", "keep going", "carry on",
    "more",
    "[can|could] you [continue|go on|keep going]?",
    "[and then|what happened then|what happens next|then what|and]?",
    "continue [the story|it|your story|your answer|where you stopped|where you left off|from there]",
    "[tell me|finish|go on with] the [rest|story]", "you stopped, [go on|continue|please continue]",
    "[how does it end|how does the story end|how does it go on|what comes next]?", "don't stop",
    "the rest please",
    "[sorry, |i pressed stop, ][continue|go on|please continue]",
    "finish [it|the story|your story|what you were saying]",
    "proceed", "resume", "keep on", "don't leave me hanging", "[tell me|say|write|show me] more",
    "[pick up|carry on|resume] where you [stopped|left off]",
    "you [did not|didn't] finish[, go on|, please do|]",
    "that was not [the end|all|everything][, continue|, go on|]",
    "[is there more|is that all|is that the end|was that all|was that it]?",
    "i [want|would like] to [hear|know] the [end|ending|rest]",
    "complete [the|your] [sentence|answer|story|text]", "[you were|that was|your answer was] cut off",
    "let's hear the [rest|end|ending]", "keep [talking|writing|telling]",
    "what happened [in the end|after that|to them|afterwards]?",
)  # fmt: skip
