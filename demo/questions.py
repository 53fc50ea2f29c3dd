"""The ways to ask for what is in the tables of ``demo.facts``."""

from __future__ import annotations

_ASK = (
    "[what is|what's|tell me|do you know|can you tell me|could you tell me|name|give me|i want to know|say|"
    "remind me,"
    " what is|what was|i would like to know|please tell me|you know|would you know]"
)

CAPITAL_PATTERNS: tuple[str, ...] = (
    "what is the capital of {x}?",
    "[what is|what's] the capital [|city ]of {x}?",
    _ASK + " the capital [|city ]of {x}?",
    _ASK + " the capital [|city ]of {x}",
    "[capital|the capital|capital city][| of] {x}[|?]",
    "{x}[ capital|'s capital|'s capital city|: capital|, capital]?",
    "[what is|what's|tell me|name] {x}'s capital[| city][|?]",
    "[which|what] [city|town] is the capital of {x}?",
    "[what|which] is the capital [city|town] [of|in] {x}?",
    "what capital [does {x} have|has {x} got|belongs to {x}]?",
    "{x} has [which|what] capital?",
    "the capital of {x} is[| what| called| ...]?",
    "what is the capital [called|city called] in {x}?",
    "[i need|i am looking for|find|guess|look up] the capital of {x}",
    "do you know [what|which city] the capital of {x} is?",
    "can you name the capital of {x}?",
    "{x}: what is [the|its] capital?",
    "in {x}, what is the capital?",
)
FOLLOW_UP_PATTERNS: tuple[str, ...] = (
    "[and|what about|how about|and what about|now|then|and for|and of|also|ok, and] {x}?",
    "[and|what about|how about] {x} [then|now]?",
    "{x}?",
)
COUNTRY_PATTERNS: tuple[str, ...] = (
    "[which|what] country has the capital {x}?",
    "{x} is the capital of [what|which country|which land]?",
    "[of which|of what] country is {x} the capital?",
    "[which|what] country is {x} the capital of?",
    "[tell me|do you know|name] [which|what|the] country {x} is the capital of",
    "what is {x} the capital of?",
    "[what|which] country does the capital {x} belong to?",
    "the city {x} is the capital of [which|what] country?",
    "the capital {x} [is in|belongs to] [which|what] country?",
)
COLOUR_PATTERNS: tuple[str, ...] = (
    "what [colour|color] is {x}?",
    "what [colour|color] [is|are|has|have] {x}?",
    "[which|what] [colour|color] [is|has|does {y} have, i mean] {x}?",
    "[what is|what's|tell me|do you know|name|give me|say|can you tell me|i want to know] the [colour|color] "
    "of {x}[|?]",
    "[tell me|do you know|can you tell me|could you say|say] [what|which] [colour|color] {x} is[|?]",
    "[the |][colour|color] of {x}[|?]",
    "{x} [is|has|are|comes in|shows] [what|which] [colour|color]?",
    "{x}[, what colour|, which color|: colour|: what color is it| colour| color]?",
    "[what|which] [colour|color] does {x} have?",
    "[what|which] [colour|color] [would you paint|should i paint|do i paint|would you say is|do you give] {x}?",
    "i [want to|am going to|will] [paint|draw] {x}, [what|which] [colour|color] do i [need|take|use]?",
    "how would you describe the [colour|color] of {x}?",
    "if i [look at|see|draw] {x}, [what|which] [colour|color] is it?",
    "does {x} have a [colour|color]?",
)
SOUND_PATTERNS: tuple[str, ...] = (
    "what [sound|noise] does {a} make?",
    "[what|which] [sound|noise|sounds|noises] [does|do|would|can] {a} make?",
    "[what|which] [sound|noise] do {p} make?",
    "what [does {a}|do {p}] say?",
    "what does the {x} say?",
    "how does {a} [sound|go|talk|speak]?",
    "how do {p} [sound|go|talk|speak]?",
    "[what is|tell me|do you know|make|give me|say|imitate|name|can you make] the [sound|noise] of [{a}|{p}][|?]",
    "[tell me|do you know|can you tell me|say] what [{a} says|{p} say|sound {a} makes|noise {p} make][|?]",
    "[{a}|{p}] [says|say|goes|go] what?",
    "the {x} goes[| ...| what]?",
    "[sound|noise] of [{a}|{p}][|?]",
    "[can|could] you [sound|talk|speak|be|do] [like |]{a}?",
    "[{x}|{x} sound|{x} noise][|?]",
    "if you were {a}, what would you say?",
    "how would [{a}|{p}] [sound|speak|say hello]?",
    "what [do i|would i|will i|can i] hear [from|when i meet|near] {a}?",
    "what [sound|noise] comes from {a}?",
    "[mimic|play|act like|pretend to be] {a}",
    "[can you|could you|try to|] [imitate|mimic] {p}",
    "[let me hear|show me how] {a} [sounds|talks|goes|speaks]",
)
ANIMAL_PATTERNS: tuple[str, ...] = (
    "[which|what] animal [says|goes|makes] {x}?",
    "who [says|goes|makes] {x}?",
    "[which|what] animal [makes|has] the [sound|noise] {x}?",
    "{x}, [which|what] animal is that?",
    "[tell me|do you know|name] [which|what|the] animal [that says|says|goes] {x}[|?]",
    "i hear {x}, [who|what|which animal] is it?",
    "[what|who] is it that says {x}?",
    "{x} is the [sound|noise] of [what|which] animal?",
)
NAME_PATTERNS: tuple[str, ...] = (
    "[|hi, |hello, |hey, |hello! |hi |good morning, ]my name is {n}",
    "[|hi, |hello, |hey, |hi ][my name's|i am|i'm|i am called|it's|this is|it is|call me|they call me|people "
    "call me|you can call me] {n}",
    "[please call me|please, call me|just call me|my friends call me|i go by|the name is|name is|everyone "
    "calls me|you may call me] {n}",
    "[i am|i'm|my name is|call me] {n}[, nice to meet you|, by the way|, who are you|, hello|, and you]",
    "[you should know that|let me introduce myself,|by the way,|let me tell you,|remember that|remember,|for "
    "your information,] "
    "[my name is|i am|i'm called|i am called|they call me] {n}",
    "{n} is my name",
    "{n} is [what they call me|what people call me|the name]",
)
BARE_NAME_PATTERNS: tuple[str, ...] = (
    "{n}",
    "{n}, [of course|actually|and yours]",
    "[it is|it's|i am|oh,] {n}",
)
ACCEPT_PATTERNS: tuple[str, ...] = (
    "[yes|yes please|sure|please|please do|of course|ok|okay|yeah|i would like that|why not|go ahead]",
)
DECLINE_PATTERNS: tuple[str, ...] = ("[no|no thanks|no thank you|not now|maybe later|nope|never mind]",)
FEELING_PATTERNS: tuple[str, ...] = (
    "[fine|good|great|well|very well|not bad|all good|ok|okay|i am fine|me too|also good|wonderful]",
)
RENAME_PATTERNS: tuple[str, ...] = (
    "[actually|no|sorry|wait|oh], [my name is|i am|call me|i meant] {n}",
    "[my real name is|my name is really|please call me] {n}[| from now on| instead]",
    "i changed my name to {n}",
)
RECALL_PATTERNS: tuple[str, ...] = (
    "what is my name?",
    "what's my name?",
    "[what is|what's|what was|tell me|say] my name[| again| please][|?]",
    "[who am i|do you know who i am|tell me who i am|remember who i am|and who am i|can you say who i am]?",
    "[do|did|can|will] you [still |][remember|know|recall|forget] my name[| now| after all this]?",
    "[do you remember|do you know|can you tell me|could you say] [my name|what my name is|what i am called|"
    "who i am|how i am called]?",
    "[what|how] [am i called|do people call me|do they call me|do you call me|should you call me]?",
    "what name did i [give|give you|tell you|say|use]?",
    "[which|what] name [is mine|do i have|have i got]?",
    "my name [is|was]?",
    "did i tell you my name?",
    "have you forgotten [my name|who i am|me]?",
    "[i forgot|i have forgotten|remind me of|repeat|please say|use] my name",
    "what did i say my name [is|was]?",
    "who was i?",
    "[what|which] name did i [write|type|mention|have][| before| earlier| first| at the start]?",
    "do you still know [me|who i am|my name]?",
    "[and|so] [what about me|my name|who am i]?",
    "[what|how] did i [call myself|introduce myself]?",
)
_PLUS = (
    "{a} [+|plus|and] {b}",
    "{a}+{b}",
)
SUM_PATTERNS: tuple[str, ...] = (
    "what is {a} [+|plus] {b}?",
    "what is {a}+{b}?",
    "[what is|what's|how much is|calculate|compute|work out|tell me|do you know|can you tell me|solve|please "
    "add|what do i get for]"
    " {a} [+|plus] {b}?",
    *(f"{plus}[|?| =| = ?| is| is what?| makes what?| equals| makes| gives]" for plus in _PLUS),
    "[add|please add|can you add|could you add|sum|sum up] {a} and {b}[|?]",
    "[add|please add|can you add] {a} to {b}[|?]",
    "[what is|what's|tell me|give me|calculate|find|compute] the sum of {a} and {b}[|?]",
    "[how much|how many] [are|is|do] {a} and {b} [|make|together]?",
    "[what do|what does] {a} [and|plus] {b} [make|give|equal]?",
    "{a} and {b} [makes|make|is|are|together make] [what|how much|how many]?",
    "i have {a} [apples|coins|books|cats|euros] and [get|buy|find] {b} [more|], how many [do i have|are there]?",
    "if [i|you] add {a} [and|to] {b}, what [do i|do you] get?",
    "can you [add up|work out|calculate|do] {a} [+|plus] {b}?",
    "[i need|i want|we need|let me have] the [sum|total] of {a} and {b}",
    "what [would|will|does] {a} [+|plus|and] {b} [be|make|give|sum to]?",
    "{a} [+|plus] {b}, [what is that|what do i get|how much|what does that make]?",
    "[let us add|let's add|try] {a} [and|plus|+] {b}",
)
DIFFERENCE_PATTERNS: tuple[str, ...] = (
    "what is {a} [-|minus] {b}?",
    "what is {a}-{b}?",
    "[what is|what's|how much is|calculate|compute|work out|tell me|do you know|can you tell me|solve|what "
    "do i get for]"
    " {a} [-|minus] {b}?",
    "{a} [-|minus|take away|less] {b}[|?| =| = ?| is| is what?| makes what?| equals| makes| gives]",
    "{a}-{b}[|?| =]",
    "[subtract|take|take away|please subtract|can you subtract] {b} from {a}[|?]",
    "[what is|what's|tell me|calculate] the difference [between|of] {a} and {b}[|?]",
    "[what do|what does] {a} minus {b} [make|give|equal]?",
    "i have {a} [apples|coins|books|sweets|euros] and [lose|eat|give away|spend] {b}, how many [are left|do "
    "i have|remain]?",
    "if [i|you] take {b} [from|away from] {a}, what [is left|do i get|remains]?",
    "what is left [if i take|of {a} if i take|when i take] {b} [from {a}|away]?",
    "how much is {a} [minus|take away|less] {b}?",
    "what [would|will|does] {a} [-|minus] {b} [be|make|give|leave]?",
    "{a} [-|minus] {b}, [what is that|what do i get|how much|what does that make]?",
)
HARD_SUM_PATTERNS: tuple[str, ...] = (
    "what is {a} [*|x|times|multiplied by|divided by|/|÷|×|to the power of|modulo|percent of] {b}?",
    "{a}[*|/|x| times | divided by |^]{b}[|?| =]",
    "[how much is|calculate|compute] {a} [*|times|divided by|/] {b}[|?]",
    "{a} + {b} + {a}[|?]",
    "what is {a} [+|plus] {b} [+|plus|-|minus] {a}?",
    "multiply {a} [by|with] {b}",
    "divide {a} by {b}",
    "double {a}",
    "what is half of {a}?",
)
