"""Questions outside what tiny-chat knows, of many shapes, so that it learns to say so rather than to guess.

Many of them use words from inside (countries, animals, browsers): the model must not answer to a keyword.
"""

from __future__ import annotations

import random

from demo.facts import (
    CAPITALS,
    COUNTRY_BEGINNINGS,
    COUNTRY_ENDINGS,
    COUNTRY_MIDDLES,
    NAME_SYLLABLES,
    UNKNOWN_ANIMALS,
    UNKNOWN_COUNTRIES,
    UNKNOWN_THINGS,
)
from demo.grammar import expand, fill

_KNOWN = "I know greetings, capitals, colours, animal sounds, small sums, short stories and SplitLLM."
REFUSAL = f"I do not know that. I am a very small model; {_KNOWN}"
REFUSAL_CAPITAL = "I do not know that capital. I am a very small model and know only some countries."
REFUSAL_COUNTRY = "I do not know a country with that capital. I am a very small model and know only some of them."
REFUSAL_COLOUR = "I do not know that colour. I am a very small model and know only a few things."
REFUSAL_SOUND = "I do not know that sound. I am a very small model and know only some animals."
REFUSAL_SUM = "I do not know that one. I am a very small model and can only add and subtract up to 20."

_PATTERNS: tuple[str, ...] = (
    "[how is|what is|how will be|what will be] the weather [like |][today|tomorrow|in {place}|in {place} "
    "today|next week|tonight]?",
    "[will|does|is] it [rain|snow|raining|cold|hot|sunny|windy] [today|tomorrow|in {place}|this afternoon|"
    "this weekend|outside]?",
    "who [won|will win] [the election|the world cup|the match|the race|the war|the game|the championship|the "
    "lottery|last night] [|in {place}|in {year}]?",
    "who is [the president|the king|the queen|the prime minister|the mayor|the leader|the richest man|the "
    "best singer|the pope] [of {place}|now|of {place} now|]?",
    "who [is|was] {person}?",
    "who [wrote|painted|invented|discovered|built|founded|made|composed|directed] {made}?",
    "when [was|did] {person} [born|die|live|become famous|start|win]?",
    "when [is|was] [christmas|easter|the war|{made} made|the french revolution|the next train|your birthday|"
    "the concert|the deadline]?",
    "what [happened|did people do] in [{year}|{place}|{place} in {year}]?",
    "where [is|was|can i find|do i get|do i buy|is there] [{place}|{thing}|{person}|a good restaurant|the "
    "toilet|a hotel]?",
    "how [do|can|should] i [{task}]?", "how to {task}?", "[can|could|would|will] you [please |]{request}?",
    "{request}[| please| for me]",
    "[write|code|give me|show me|make|create] [me |][a|some] [python|javascript|java|rust|c++|sql|bash|html] "
    "[code|script|function|program|query|snippet] [that|to|which] {codetask}",
    "write [me |][a|an] [poem|essay|letter|email|song|report|speech|summary|haiku|tweet|cover letter|"
    "article] [about|on|for] [{thing}|{place}|{abstract}|{person}]",
    "translate [{thing}|{abstract}|this|hello|good morning|the sentence|my text] [to|into] [german|french|"
    "spanish|chinese|latin|italian|japanese]",
    "what is [the meaning|the definition|the opposite|the purpose|the origin|the history|the point|the "
    "essence] of [{abstract}|life|{thing}]?",
    "what is [{abstract}|{tech}|{thing} made of|{thing}]?", "[explain|describe|define|tell me about|tell me "
    "something about|what do you know about] [{abstract}|{tech}|{place}|{person}|{made}|{thing}]",
    "what [are|were] [{tech}|{abstract}|the rules of chess|the symptoms of flu|the ingredients of {food}|the "
    "lottery numbers|the news|the latest news|the headlines]?",
    "why [is|are|do|does|did] [{thing} so expensive|the sky blue|we dream|{place} so cold|people lie|cats "
    "purr|birds fly|grass grow|{person} famous|water wet|the sea salty|i exist|we sleep|it rain]?",
    "how [old|tall|big|heavy|rich|long|deep|far|high|fast|wide|expensive|hot|cold] is [{thing}|{person}|"
    "{place}|{made}|{animal}|the moon|mount {person}|the river]?",
    "how [many|much] [people live in {place}|does {thing} cost|legs has {animal}|days are in {year}|calories "
    "has {food}|is {thing}|money do i need|stars are there|planets are there|hours are in a week|does {food} "
    "weigh]?",
    "what does {animal} [eat|look like|do|weigh|drink|dream of]?", "where does {animal} live?",
    "how long does {animal} [live|sleep]?", "[can|do] {animals} [fly|swim|climb|bite|think|sleep]?",
    "what is the [population|currency|language|flag|area|history|president|highest mountain|longest river|"
    "anthem|food|climate|time zone|largest city|second city] of {place}?",
    "[which|what] language do they speak in {place}?", "how do i get [to|from] {place}[| to {place}]?",
    "is {place} [nice|far|big|safe|rich|in europe|a country|an island|worth a visit]?",
    "what [time|day|year|date|month] is it[| now| today| in {place}]?",
    "what is [today's date|the time|the date|the price of {thing}|the best {thing}|the score]?",
    "[should|shall|must|can|may] i [buy {thing}|marry {person}|quit my job|move to {place}|eat {food}|sell "
    "{thing}|learn {tech}|see a doctor|vote|invest in {thing}|go to {place}|call {person}]?",
    "[which|what] [book|film|movie|song|game|phone|laptop|car|party|team|restaurant|series|band|wine|diet|"
    "bank|browser|server|present] [should i|can i|would you|do you] [choose|recommend|like|buy|read|watch|"
    "use|prefer|take|vote for|play]?",
    "[recommend|suggest|find|order|book|buy|play|show|send|open|call|cancel] [me |us |][a film|a book|a song|"
    "a hotel in {place}|a flight to {place}|a pizza|{thing}|a game|a restaurant|some music|a present for "
    "{person}|my mail]",
    "what do you think [of|about] [{person}|{abstract}|{place}|politics|{thing}|the election|{tech}|god]?",
    "do you [like|believe in|know|have|remember|own|want|eat|play|understand] [{person}|{food}|{thing}|"
    "{abstract}|football|chess|god|pizza|{made}|{animals}]?",
    "what is [my|your] [age|birthday|address|phone number|favourite food|favourite film|favourite song|"
    "mother's name|job|salary|password|cat's name|dog's name|opinion|blood type|zodiac sign|email]?",
    "how old [am i|are you|is my mother]?",
    "where [do i|do you] [live|work]?",
    "[what did i|what did you] [eat|do|buy|dream|say] [yesterday|last week|this morning|last year]?",
    "[solve|integrate|differentiate|factorise|simplify|prove] [x squared plus 2 x|the equation|the riemann "
    "hypothesis|x + 3 = 7|this integral|the pythagorean theorem|2x = 8]",
    "what is the [square root|cube|logarithm|factorial|sine|prime factors] of {number}?",
    "is {number} [a prime|prime|even|odd|bigger than {number}]?", "what is pi[| to ten digits]?",
    "count to {number}",
    "i [like|love|hate|need|bought|lost|saw|want|miss|own|sold] [{thing}|{food}|{animals}|{person}|{place}|"
    "football|my job|{abstract}]", "my [mother|father|friend|dog|boss|sister|neighbour|car|phone|computer|"
    "teacher] [is|was] [ill|angry|old|from {place}|nice|broken|a doctor|at home|a fan of {person}]",
    "[yesterday|today|tomorrow|last year] [i went to {place}|we ate {food}|i met {person}|it rained|i will "
    "go to {place}|my {thing} broke]", "[what|who|where|why|when|how]?",
    "who [invented|made|owns] [webgpu|the browser|the server]?", "{gibberish}",
    "{gibberish} {gibberish}[| {gibberish}]", "what is a {gibberish}?", "{foreign}",
    "[is|are] [{thing}|{person}|{food}|{abstract}|{animals}|{tech}] [good|bad|dangerous|healthy|true|real|"
    "free|better than {thing}|important|popular|worth it]?",
    "compare [{thing}|{tech}|{place}] [and|with|to] [{thing}|{tech}|{place}]",
    "what is the difference between [{thing}|{tech}|{animal}|{abstract}] and [{thing}|{tech}|{animal}|"
    "{abstract}]?", "what rhymes with [{thing}|orange|{place}]?",
    "how do you spell [{thing}|{place}|{abstract}|rhythm]?", "give me [a recipe for {food}|advice|three "
    "facts about {thing}|a tip|money|a quiz|five names for {animal}|a synonym for {abstract}|directions to "
    "{place}]",
    "[what|who] [caused|causes|started|ended|killed] [{abstract}|{person}|the war|cancer|the crisis|the "
    "fire]?", "what [would happen|happens] if [{thing} fell on {place}|the sun went out|{person} came back|i "
    "drop {thing}|we mix {food} and {food}|it rains]?", "[which|what] is the [biggest|smallest|oldest|best|"
    "fastest|tallest|richest|worst|deepest] [city|mountain|river|animal|planet|company|building|lake|school|"
    "ocean|team|car|country] [in the world|in {place}|on earth|]?",
    "[how|what] about [politics|the news|sports|football|lunch|dinner tonight|the stock market|the economy|"
    "{tech}|your family]?", "name [three|two|five|some|all] [{animals}|planets|rivers|countries|presidents|"
    "trees|cities in {place}|films|composers|flowers|metals|languages]",
    "[which|what] [browser|laptop|graphics card|router|phone|password manager] is [the best|the fastest|"
    "the safest|good for {thing}]?",
    "how do i [clear|empty|delete] [the cache|the cookies|my history|my downloads|the trash] [in my "
    "browser|on my phone|]?",
    "how do i [update|change|uninstall|reinstall|close|translate] [my browser|a tab|the default browser|"
    "my search engine|an extension]?",
    "why [is|does] my [wifi|internet|printer|old computer|phone|game] [so slow|keep crashing|not working|"
    "broken]?",
    "[what does|how much does] a [web server|mail server|game server|graphics card|domain|router] cost?",
    "how do i [restart|secure|back up|update|log in to] my [web server|mail server|minecraft server|"
    "router|database server]?",
    "[is|are] [online banking|my bank account|public wifi|my credit card|my house] [safe|secure|private]?",
    "who [owns|founded|runs] [google|nvidia|apple|mozilla|microsoft|wikipedia|chrome]?",
    "how many [tabs|browsers|servers|websites|computers] [are there|exist|does google have|can i open]?",
    "what is a [cookie|bookmark|url|domain|vector|matrix|web server|search engine|hard disk|pixel|torrent|"
    "keyboard layout]?",
    "what [happens|is new] in [{place}|the sky|the world|{made}|politics]?",
    "what is [my|your] [brother|sister|wife|husband|father|teacher|neighbour|boss|hamster|son|daughter|"
    "grandmother]'s [|first |last ]name?",
    "[do you know|can you guess|what was] the name of [my school|my street|{person}'s wife|the queen|the "
    "river in {place}|the author|this song|my dog]?",
    "what [should|could|shall] i [call|name] my [dog|cat|baby|boat|band|hamster|company|horse]?",
    "what does the name {person} mean?", "how do you [pronounce|write] the name {person}?",
    "what is my [last name|surname|middle name|maiden name|username|nickname at school]?",
    "how many people live in the capital of {place}?",
    "what is the capital of {place} [famous for|like in winter|known for]?",
    "[who founded|when was|how old is|how big is] the capital of {place}[| built]?",
    "how [far|long] is it from {place} to {place}?",
    "what is the [second|oldest|most beautiful|coldest] city [in|of] {place}?",
    "[is|was] {person} [ever in|born in|buried in|from] {place}?",
    "what is [your|my|{person}'s] favourite [colour|color|animal|story|number|country|capital]?",
    "how many colours [has a rainbow|are there|can {animal} see|does a printer need]?",
    "[which|what] colours [do i mix|make] [to get green|brown|for purple|when mixed]?",
    "why is {thing} [red|green|blue|so bright|black]?",
    "[why|when] do {animals} [make noise|bark|sing|sleep all day|migrate|hibernate]?",
    "how loud is {animal}?",
    "what is the [speed of sound|speed of light|loudest animal|fastest animal|longest word|highest "
    "number]?",
    "what is [the moral|the title|the author|the oldest version] of [{made}|the story|the book|the fairy "
    "tale]?",
    "who wrote the [story|tale|book|song] [about|of] {person}?",
    "how [many|much] [pounds|euros|dollars|yen] is [a dollar|one euro|{number} dollars|a bitcoin|{number} "
    "euros]?",
    "how many [grams|cups|miles|feet|seconds|minutes|inches] are in [a pound|a litre|a kilometre|a metre|"
    "an hour|a year]?",
    "add {food} to my [shopping list|order|basket]",
    "[add|subtract] [my age|the tax|ten percent] [to|from] [yours|the price|my salary]",
    "what is {place} plus {place}?", "how much tax do i [pay|owe] [in {place}|on {thing}|]?",
    "what is {number} in [roman numerals|binary|words|hexadecimal]?",
    "[what|which] number [comes after|is missing in|is next after] [two, four, eight|infinity|a million|a "
    "googol]?",
    "[any idea|any clue|do you happen to know|mind telling me] [who {person} is|where {place} is|how to "
    "{task}|what {thing} costs|when the shop opens|why people like {food}]?",
    "i was [hoping|wondering if] you could {request}", "any chance you could {request}?",
    "would you mind helping me [{task}|to {task}]?",
    "i [need|want|would like|am trying] to {task}[|, how|, any tips|, where do i start]?",
    "[best|cheapest|nicest] [way to {task}|hotel in {place}|recipe for {food}|book about {abstract}|time "
    "to visit {place}][|?]",
    "[weather|news|traffic|flights|map|jobs|football results] [in {place}|for {place}|{place} today][|?]",
    "{person}[, who is that|, born when| biography|'s birthday|: alive or dead]?",
    "{food} [recipe|calories|for two][|?]",
    "[is it true that|i heard that|someone said] [{person} was from {place}|{animals} can talk|{food} is "
    "bad for you|{abstract} is a lie|{thing} can fly]",
    "[my doctor|my teacher|my boss|my wife|a friend] [says|told me|thinks] i should [{task}|eat {food}|go "
    "to {place}|read {made}]",
    "what [should|shall|could] i [cook|wear|eat|do|watch|read|pack] [tonight|today|for {person}|in "
    "{place}|tomorrow|this weekend]?",
    "[when|what time] does [the shop|the bank|the train to {place}|the film|the sun|the museum in "
    "{place}] [open|close|leave|start|rise|set]?",
    "[give|lend|send|bring|get] me [{thing}|{food}|some money|a ticket to {place}]",
    "who [is|was] the first [person|man|woman] [on the moon|in {place}|to {task}]?",
    "[guess|calculate|estimate] [my weight|how old i am|my age|the price of {thing}|the size of {place}]",
    "[is there|are there] [life on mars|{animals} in {place}|aliens|a cure for {abstract}|a bus to "
    "{place}|snow in {place}]?",
    "what [ingredients|tools|visa|clothes|vaccines] do i need for [{food}|{place}|{thing}]?",
    "[did|has] {person} [ever |][meet|met|write|paint|visit|visited|marry] [{person}|{made}|{place}]?",
    "how [do|did] [{animals} breathe|people live in {year}|planes fly|magnets work|they build {made}|"
    "vaccines work|plants grow]?",
    "[who|what] is [better|stronger|more important|older], [{person} or {person}|{animal} or {animal}|"
    "{place} or {place}|{tech} or {tech}]?",
    "[which|what] [river|sea|mountain|language|religion|airport] is in {place}?",
    "i [think|believe|guess|hope] [{abstract} is important|{person} is right|it will rain|my team will "
    "win|{place} is far away]",
    "[remind me|wake me|call me back] [tomorrow|at seven|in an hour|on monday]",
    "[turn|switch] [on|off|up] the [radio|heating|lights|tv|music]",
    "[rate|review|judge|criticise] my [essay|{thing}|outfit|song|poem]",
    "in which year [was {person} born|did {person} die|was {made} made|did the war end]?",
    "{foreign}[|]", "{gibberish}[| please| now]", "[why|how|who is|do you|explain] {gibberish}[|?]",
)  # fmt: skip

_PLACES: tuple[str, ...] = (
    *(name for name in CAPITALS), *CAPITALS.values(), *UNKNOWN_COUNTRIES[:60], "Hamburg", "Milan",
    "Barcelona", "Texas", "Sydney", "Mumbai", "Lyon", "my town", "New York", "the desert", "my garden",
    "Antarctica", "the north", "Paris",
)  # fmt: skip
_PEOPLE: tuple[str, ...] = (
    "Napoleon", "Einstein", "Mozart", "Shakespeare", "Cleopatra", "Julius Caesar", "Beyoncé", "Picasso",
    "Newton", "Darwin", "Marie Curie", "Gandhi", "Elvis", "Madonna", "Lincoln", "Washington", "Obama",
    "Goethe", "Bach", "Tesla", "Plato", "Harry Potter", "Batman", "Taylor Swift", "Messi", "Ronaldo",
    "the president", "my uncle", "Socrates", "Columbus", "Turing", "Galileo", "Dante", "Frida Kahlo",
    "Kafka", "Homer", "Zeus", "Sherlock Holmes", "Mickey Mouse", "Peter Pan",
)  # fmt: skip
_MADE: tuple[str, ...] = (
    "the telephone", "the mona lisa", "hamlet", "the bible", "the light bulb", "the internet", "penicillin",
    "the eiffel tower", "america", "the pyramids", "google", "the wheel", "star wars", "gravity",
    "the ninth symphony", "the first computer", "facebook", "war and peace", "the great wall", "linux",
    "titanic", "chess", "the piano", "minecraft", "faust", "the odyssey",
)  # fmt: skip
_TASKS: tuple[str, ...] = (
    "cook {food}", "fix {thing}", "learn {tech}", "lose weight", "get rich", "bake {food}", "clean {thing}",
    "tie a tie", "find a job", "install {tech}", "make {food}", "sleep better", "grow tomatoes",
    "draw {animal}", "play chess", "swim", "paint {thing}", "stop smoking", "buy a house in {place}",
    "travel to {place}", "repair {thing}", "write a book", "train {animal}", "build {thing}",
    "feed {animal}", "delete my account", "reset my password", "open {thing}", "catch {animal}",
    "become a doctor", "learn spanish", "hack a server",
)  # fmt: skip
_REQUESTS: tuple[str, ...] = (
    "help me with my homework", "write my essay", "book a flight to {place}", "read my mail",
    "call {person}", "play some music", "draw {animal}", "sing a song", "set an alarm",
    "send {person} a message", "search the web for {thing}", "summarise this text",
    "plan a trip to {place}", "order {food}", "check my code", "debug my program",
    "show me a picture of {animal}", "proofread my letter", "fix this bug", "remind me of my meeting",
    "cook {food}", "look up {person}", "sort this list", "read the news", "turn off the light",
    "explain {tech}", "explain {abstract}", "design a logo", "do my taxes", "guess my age",
    "predict the future", "count the stars", "name all the planets", "list the presidents of {place}",
    "write a limerick", "find a doctor", "tell me the time", "say it in french",
)  # fmt: skip
_CODE_TASKS: tuple[str, ...] = (
    "reverses a string", "sort numbers", "open a file", "prints {thing}", "read a csv file", "find primes",
    "solve sudoku", "count words", "download a page", "parse json", "connects to a database", "plays chess",
    "compute the fibonacci numbers", "train a network", "list all files", "send an email",
    "merge two lists", "find duplicates", "draw a circle", "remove spaces", "start a server",
)  # fmt: skip
_ABSTRACT: tuple[str, ...] = (
    "life", "love", "happiness", "democracy", "gravity", "photosynthesis", "the economy", "inflation",
    "evolution", "freedom", "justice", "quantum physics", "philosophy", "religion", "electricity",
    "climate change", "art", "truth", "the universe", "relativity", "time travel", "the stock market",
    "history", "chemistry", "war", "death", "capitalism", "psychology", "dark matter", "DNA", "magnetism",
    "entropy",
)  # fmt: skip
_TECH: tuple[str, ...] = (
    "python", "javascript", "kubernetes", "docker", "a blockchain", "bitcoin", "a compiler", "a database",
    "linux", "a quantum computer", "rust", "git", "excel", "a firewall", "an operating system", "java",
    "react", "a vpn", "tcp", "a pointer", "recursion", "a virus", "5g", "bluetooth", "a cpu",
    "an algorithm", "machine learning", "a neural network", "the dark web", "html", "a black hole",
    "a vaccine", "an atom", "a mortgage",
)  # fmt: skip
_FOODS: tuple[str, ...] = (
    "pizza", "pancakes", "soup", "bread", "curry", "lasagne", "rice", "an omelette", "cake", "sushi",
    "pasta", "tacos", "cookies", "salad", "goulash", "paella", "noodles", "porridge", "risotto", "a burger",
    "kimchi", "cheese", "eggs", "dumplings", "ice cream", "chili",
)  # fmt: skip
_FOREIGN: tuple[str, ...] = (
    "wie geht es dir?", "was ist die hauptstadt von frankreich?", "¿cómo estás?", "¿qué hora es?",
    "comment ça va?", "quel temps fait-il?", "come stai?", "你好吗?", "今天天气怎么样?", "法国的首都是哪里?",
    "お元気ですか?",
    "привет, как дела?", "сколько времени?", "مرحبا", "안녕하세요", "hola amigo", "bonjour", "guten morgen",
    "🙂🙂🙂", "🚀", "🤷 ❓", "👍🏽", "🐶?", "❤️", "😂😂", "∑ x²", "???", "...", "<b>hi</b>", "{\"a\": 1}",
    "SELECT * FROM users", "print(1)", "ich heiße jürgen", "je m'appelle chloé", "grüße aus köln", "ça va?",
    "où est la gare?", "здравствуйте", "谢谢", "ありがとう", "नमस्ते", "🎉🎂",
)  # fmt: skip


def invented_country(rng: random.Random) -> str:
    name = rng.choice(COUNTRY_BEGINNINGS) + rng.choice(COUNTRY_MIDDLES) + rng.choice(COUNTRY_ENDINGS)
    return rng.choice(("", "", "", "", "", "New ", "West ", "the ")) + name


def invented_word(rng: random.Random) -> str:
    """A pronounceable word of two to four syllables, which may by chance be a real one."""
    return "".join(rng.choice(NAME_SYLLABLES) for _ in range(rng.randint(2, 4)))


def _gibberish(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return invented_word(rng)
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 9)))


def with_article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def unknown_country(rng: random.Random) -> str:
    """A country that is not in the table: a real one, an invented one or a city."""
    kind = rng.random()
    if kind < 0.45:
        return rng.choice(UNKNOWN_COUNTRIES)
    if kind < 0.93:
        name = invented_country(rng)
        return name if name.removeprefix("the ") not in CAPITALS else rng.choice(UNKNOWN_COUNTRIES)
    return rng.choice((*CAPITALS.values(), "my country", "the world", "the sea"))


def unknown_thing(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(UNKNOWN_THINGS)
    if kind < 0.7:
        return with_article(rng.choice([animal for animal in UNKNOWN_ANIMALS if animal not in _COLOURED_ANIMALS]))
    return with_article(invented_word(rng))


def unknown_animal(rng: random.Random) -> tuple[str, str]:
    """Singular and plural of something whose sound is not in the table."""
    kind = rng.random()
    if kind < 0.68:
        name = rng.choice(UNKNOWN_ANIMALS)
    elif kind < 0.9:
        name = invented_word(rng)
    else:
        name = rng.choice(
            (
                "banana",
                "carrot",
                "house",
                "teacher",
                "cloud",
                "stone",
                "car",
                "robot",
                "tree",
                "server",
                "ghost",
                "king",
            )
        )
    return name, name + "s"


_COLOURED_ANIMALS = frozenset({"crocodile", "flamingo", "swan", "polar bear"})


def free_question(rng: random.Random) -> str:
    """One question or remark, in lower case save for names, that nobody taught the model to answer."""
    text = expand(rng, rng.choice(_PATTERNS))
    while "{" in text and not text.startswith('{"'):
        text = _fill_once(rng, text)
    return text


def _fill_once(rng: random.Random, text: str) -> str:
    animal = (
        rng.choice(UNKNOWN_ANIMALS) if rng.random() < 0.7 else rng.choice(("cow", "dog", "cat", "lion", "sheep", "owl"))
    )
    return fill(
        text,
        {
            "place": rng.choice(_PLACES),
            "person": rng.choice(_PEOPLE),
            "made": rng.choice(_MADE),
            "task": rng.choice(_TASKS),
            "request": rng.choice(_REQUESTS),
            "codetask": rng.choice(_CODE_TASKS),
            "abstract": rng.choice(_ABSTRACT),
            "tech": rng.choice(_TECH),
            "food": rng.choice(_FOODS),
            "thing": rng.choice(UNKNOWN_THINGS),
            "animal": with_article(animal),
            "animals": animal + ("" if animal == "sheep" else "s"),
            "year": str(rng.randint(1000, 2040)),
            "number": str(rng.randint(3, 9999)),
            "gibberish": _gibberish(rng),
            "foreign": rng.choice(_FOREIGN),
        },
    )
