"""What tiny-chat knows by heart, and the names of things that it must know that it does not know.

The known and the unknown tables of a subject are disjoint; ``tests/demo/test_corpus.py`` checks it.
"""

from __future__ import annotations

CAPITALS: dict[str, str] = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "England" : "London", "Ireland" : "Dublin", "Scotland" : "Edinburgh", "Norway" : "Oslo", "Sweden" :
    "Stockholm",
    "Denmark": "Copenhagen", "Finland": "Helsinki", "Iceland": "Reykjavik", "Poland": "Warsaw",
    "Austria": "Vienna", "Switzerland": "Bern", "Belgium": "Brussels", "the Netherlands": "Amsterdam",
    "Greece": "Athens", "Hungary": "Budapest", "Romania": "Bucharest", "Bulgaria": "Sofia",
    "Ukraine": "Kyiv", "Turkey": "Ankara", "Russia": "Moscow", "China": "Beijing", "Japan": "Tokyo",
    "India": "New Delhi", "South Korea": "Seoul", "Vietnam": "Hanoi", "Thailand": "Bangkok",
    "Indonesia": "Jakarta", "Nepal": "Kathmandu", "Australia": "Canberra", "New Zealand": "Wellington",
    "Canada": "Ottawa", "the United States": "Washington", "Mexico": "Mexico City", "Cuba": "Havana",
    "Brazil": "Brasilia", "Argentina": "Buenos Aires", "Chile": "Santiago", "Peru": "Lima",
    "Egypt": "Cairo", "Morocco": "Rabat", "Kenya": "Nairobi", "Ghana": "Accra", "Ethiopia": "Addis Ababa",
}  # fmt: skip

OTHER_COUNTRY_NAMES: dict[str, tuple[str, ...]] = {
    "England": ("the United Kingdom", "the UK", "Britain", "Great Britain"),
    "the United States": ("the USA", "the US", "America", "the United States of America"),
    "the Netherlands": ("Holland", "Netherlands"),
}

UNKNOWN_COUNTRIES: tuple[str, ...] = (
    "Albania", "Andorra", "Angola", "Armenia", "Azerbaijan", "Bahrain", "Bangladesh", "Barbados", "Belarus",
    "Belize", "Benin", "Bolivia", "Botswana", "Brunei", "Burundi", "Cambodia", "Cameroon", "Chad",
    "Colombia", "Comoros", "Congo", "Costa Rica", "Croatia", "Cyprus", "Czechia", "Djibouti", "Dominica",
    "Ecuador", "El Salvador", "Eritrea", "Estonia", "Eswatini", "Fiji", "Gabon", "Gambia", "Georgia",
    "Grenada", "Guatemala", "Guinea", "Guyana", "Haiti", "Honduras", "Iran", "Iraq", "Israel", "Jamaica",
    "Jordan", "Kazakhstan", "Kiribati", "Kuwait", "Laos", "Latvia", "Lebanon", "Lesotho", "Liberia",
    "Libya", "Liechtenstein", "Lithuania", "Luxembourg", "Malawi", "Malaysia", "Mali", "Malta", "Mauritius",
    "Moldova", "Monaco", "Montenegro", "Mozambique", "Myanmar", "Namibia", "Nauru", "Nicaragua", "Niger",
    "Nigeria", "North Korea", "Oman", "Pakistan", "Palau", "Panama", "Paraguay", "Philippines", "Qatar",
    "Rwanda", "Samoa", "San Marino", "Saudi Arabia", "Senegal", "Serbia", "Seychelles", "Sierra Leone",
    "Singapore", "Slovakia", "Slovenia", "Somalia", "South Africa", "Sri Lanka", "Sudan", "Suriname",
    "Syria", "Taiwan", "Tanzania", "Togo", "Tonga", "Tunisia", "Turkmenistan", "Tuvalu", "Uganda",
    "Uruguay", "Vanuatu", "Venezuela", "Yemen", "Zambia", "Texas", "California", "Bavaria", "Tuscany",
    "Africa", "Europe", "Asia", "the moon", "Mars", "Atlantis", "Narnia", "Wakanda", "Mordor", "Oz",
    "Wonderland", "Gondor", "Genovia", "Sparta", "Siberia",
)  # fmt: skip

COUNTRY_BEGINNINGS: tuple[str, ...] = (
    "Bor", "Zan", "Quel", "Mar", "Tol", "Vex", "Pla", "Gru", "Dra", "Ilm", "Os", "Fen", "Kal", "Rhu", "Sil",
    "Wod", "Yar", "Ebo", "Lut", "Nim", "Fra", "Ger", "Spa", "Nor", "Jap", "Ken", "Bel", "Hun", "Chi", "Ind",
    "Swe", "Ira", "Pol", "Bra", "Gly", "Xan", "Umb", "Tri",
)  # fmt: skip
COUNTRY_MIDDLES: tuple[str, ...] = (
    "", "", "a", "o", "du", "li", "va", "ne", "ro", "ka", "mi", "ster", "go", "lan", "zu", "be",
)  # fmt: skip
COUNTRY_ENDINGS: tuple[str, ...] = (
    "nia", "land", "stan", "via", "dor", "ria", "mark", "lia", "gua", "rica", "tan", "ssia", "way", "burg",
    "zia", "monia", "topia", "que", "shire", "gard", "onga", "esh",
)  # fmt: skip

# Name with its article as in an answer, plural or bare form for questions, colour.
COLOURS: tuple[tuple[str, str, str], ...] = (
    ("the sky", "the clear sky", "blue"), ("grass", "the grass", "green"), ("snow", "the snow", "white"),
    ("a banana", "bananas", "yellow"), ("a tomato", "tomatoes", "red"), ("a carrot", "carrots", "orange"),
    ("a lemon", "lemons", "yellow"), ("coal", "a piece of coal", "black"), ("milk", "the milk", "white"),
    ("the sun", "the sunshine", "yellow"), ("a strawberry", "strawberries", "red"), ("blood", "the blood",
    "red"),
    ("the sea", "the ocean", "blue"), ("a frog", "frogs", "green"), ("a leaf", "leaves", "green"),
    ("chocolate", "a chocolate bar", "brown"), ("a raven", "ravens", "black"), ("a cherry", "cherries",
    "red"),
    ("an orange", "oranges", "orange"), ("a cucumber", "cucumbers", "green"), ("a pumpkin", "pumpkins",
    "orange"),
    ("an elephant", "elephants", "grey"), ("a flamingo", "flamingos", "pink"), ("a swan", "swans", "white"),
    ("a fire engine", "fire engines", "red"), ("a polar bear", "polar bears", "white"),
    ("a plum", "plums", "purple"), ("wood", "the wood", "brown"), ("the night", "the night sky", "black"),
    ("a sunflower", "sunflowers", "yellow"), ("cheese", "the cheese", "yellow"), ("salt", "the salt",
    "white"),
    ("an emerald", "emeralds", "green"), ("a ruby", "rubies", "red"), ("gold", "a gold coin", "yellow"),
    ("broccoli", "the broccoli", "green"), ("a blueberry", "blueberries", "blue"), ("coffee", "the coffee",
    "brown"),
    ("a pig", "pigs", "pink"), ("a crocodile", "crocodiles", "green"), ("a mouse", "mice", "grey"),
)  # fmt: skip

# Animal, plural, sound.
SOUNDS: tuple[tuple[str, str, str], ...] = (
    ("cow", "cows", "moo"), ("dog", "dogs", "woof"), ("cat", "cats", "meow"), ("duck", "ducks", "quack"),
    ("sheep", "sheep", "baa"), ("pig", "pigs", "oink"), ("horse", "horses", "neigh"), ("lion", "lions",
    "roar"),
    ("frog", "frogs", "ribbit"), ("bee", "bees", "buzz"), ("snake", "snakes", "hiss"),
    ("rooster", "roosters", "cock-a-doodle-doo"), ("hen", "hens", "cluck"), ("mouse", "mice", "squeak"),
    ("owl", "owls", "hoo"), ("crow", "crows", "caw"), ("wolf", "wolves", "howl"), ("donkey", "donkeys",
    "hee-haw"),
    ("turkey", "turkeys", "gobble"), ("goose", "geese", "honk"), ("bird", "birds", "tweet"),
    ("chick", "chicks", "cheep"), ("dove", "doves", "coo"), ("bear", "bears", "growl"),
    ("monkey", "monkeys", "ooh-ooh"), ("elephant", "elephants", "toot"), ("cuckoo", "cuckoos", "cuckoo"),
    ("goat", "goats", "maa"), ("cricket", "crickets", "chirp"), ("kitten", "kittens", "mew"),
)  # fmt: skip

UNKNOWN_ANIMALS: tuple[str, ...] = (
    "aardvark", "alpaca", "ant", "antelope", "armadillo", "badger", "bat", "beaver", "beetle", "bison",
    "buffalo", "butterfly", "camel", "capybara", "caterpillar", "chameleon", "cheetah", "chipmunk", "clam",
    "cobra", "crab", "crocodile", "deer", "dinosaur", "dolphin", "dragonfly", "eagle", "eel", "emu",
    "ferret", "firefly", "fish", "flamingo", "gazelle", "gecko", "giraffe", "gnu", "gorilla", "grasshopper",
    "hamster", "hedgehog", "heron", "hippo", "hyena", "iguana", "jaguar", "jellyfish", "kangaroo", "koala",
    "ladybird", "lemur", "leopard", "lizard", "llama", "lobster", "mammoth", "mole", "mongoose", "moose",
    "moth", "narwhal", "newt", "octopus", "ostrich", "otter", "oyster", "panda", "panther", "parrot",
    "peacock", "pelican", "penguin", "platypus", "polar bear", "porcupine", "puffin", "rabbit", "raccoon",
    "rat", "rhino", "salmon", "scorpion", "seahorse", "seal", "shark", "shrimp", "skunk", "sloth", "slug",
    "snail", "spider", "squid", "squirrel", "starfish", "stork", "swan", "tapir", "termite", "tiger",
    "toad", "tortoise", "trout", "turtle", "unicorn", "vulture", "walrus", "weasel", "whale", "wombat",
    "worm", "yak", "zebra",
)  # fmt: skip

UNKNOWN_THINGS: tuple[str, ...] = (
    "a car", "a house", "a chair", "my shirt", "a book", "the number nine", "happiness", "music", "love",
    "time", "a bicycle", "the wind", "a computer", "a phone", "a door", "my hat", "a guitar", "a pencil",
    "your hair", "my cat", "a bottle", "a train", "a bus", "an idea", "a dream", "a kite", "a boat",
    "the future", "a lamp", "a shoe", "a balloon", "my car", "a violin", "a flag", "a planet", "Jupiter",
    "Mars", "a galaxy", "a dinosaur", "a parrot", "a horse", "a dog", "a cow", "a bear", "a butterfly",
    "a fish", "a shark", "a penguin", "a tiger", "a mushroom", "an onion", "a potato", "rice", "bread",
    "soup", "pasta", "pizza", "tea", "wine", "a mirror", "glass", "plastic", "paper", "a wall", "a bridge",
    "the president's tie", "a jacket", "a towel", "a pillow", "silence", "an electron", "helium", "copper",
    "iron", "sulphur", "a diamond", "an opal", "a topaz", "a rose", "a tulip", "an orchid", "a dragon",
    "a unicorn", "a ghost", "a wizard", "a spaceship", "a rocket", "a button", "a zebra", "a giraffe",
    "a koala", "a peacock", "an octopus", "a lobster", "a snail", "an ant", "a spider", "Monday",
    "your eyes", "my eyes", "a cactus", "an avocado", "a mango", "a fig", "a peach", "a grape", "an apple",
    "a keyboard", "a screen", "the letter A", "a ball", "a carpet", "a tent",
)  # fmt: skip

NAMES: tuple[str, ...] = (
    "Tom", "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo", "Ida", "Jack", "Kate", "Leo",
    "Mia", "Noah", "Olivia", "Paul", "Quinn", "Rosa", "Sam", "Tina", "Uma", "Victor", "Wendy", "Xavier",
    "Yara", "Zoe", "Alice", "Bob", "Charlie", "Diana", "Eric", "Fiona", "George", "Hannah", "Ivan", "Julia",
    "Kevin", "Laura", "Max", "Nina", "Oscar", "Peter", "Rachel", "Simon", "Theo", "Ursula", "Vera",
    "William", "Amir", "Bao", "Chen", "Deepak", "Elif", "Fatima", "Goran", "Hiro", "Ines", "Jamal", "Kofi",
    "Lars", "Mei", "Nils", "Omar", "Pilar", "Ravi", "Sven", "Thandi", "Umar", "Viktor", "Wei", "Yuki",
    "Zainab", "Alex", "Maria", "José", "Zoë", "Chloé", "Jürgen", "Søren", "Łukasz", "Björn", "Dmitri",
    "Elena", "Mary Ann", "Jean-Luc", "O'Neil", "Kim", "Alexander", "Elizabeth", "Christopher", "Stephanie",
    "Nicholas", "Catherine", "Benjamin", "Isabella", "Sebastian", "Gabriella", "Frederick", "Josephine",
    "Leonardo", "Valentina", "Mohammed", "Abdullah", "Aisha", "Björk", "Ann", "Jo", "Al", "Ed", "Liz",
    "Meg", "Tim", "Dan", "Joe", "Sue", "Pat", "Ian", "Roy", "Eve", "Amy", "Ali", "Li", "Yusuf", "Ming",
    "Akira", "Sakura", "Tariq", "Leila", "Mateo", "Sofia", "Lucas", "Camila", "李雷", "美咲", "Мария", "Иван",
    "민준", "محمد", "Дмитрий", "王伟", "さくら", "Ελένη",
    "Abigail", "Adaeze", "Adrian", "Agnieszka", "Ahmed", "Aiko", "Alejandro", "Alfie", "Amara", "Amelia",
    "Ananya", "Anders", "Andrea", "Anja", "Antonio", "Anwar", "Aoife", "Archibald", "Arjun", "Arthur",
    "Astrid", "Aurora", "Ayumi", "Azadeh", "Bartholomew", "Beatrice", "Bilal", "Birgit", "Blessing",
    "Boris", "Brigitte", "Bronwyn", "Caleb", "Carlos", "Cecilia", "Chidi", "Chiara", "Chukwuemeka", "Ciara",
    "Connor", "Cyrus", "Daphne", "Darius", "Desmond", "Dimitra", "Dolores", "Dwayne", "Ebba", "Edith",
    "Eduardo", "Efua", "Eitan", "Emeka", "Emil", "Enzo", "Esther", "Eszter", "Eugene", "Farah", "Fernando",
    "Filip", "Florence", "Francesca", "Freya", "Fumiko", "Gareth", "Gemma", "Giovanni", "Gizem", "Gustav",
    "Guadalupe", "Gwendolyn", "Hamza", "Harriet", "Hassan", "Heidi", "Henrik", "Hussein", "Ibrahim", "Igor",
    "Imani", "Ingrid", "Isaac", "Ivy", "Jacqueline", "Jakub", "Jasmine", "Javier", "Jens", "Jiho",
    "Joaquin", "Johanna", "Jonathan", "Joyce", "Juanita", "Kaito", "Katarzyna", "Keanu", "Khalid", "Kwame",
    "Lakshmi", "Layla", "Liam", "Lindiwe", "Ludwig", "Luna", "Magdalena", "Malik", "Margaret", "Marcel",
    "Matthew", "Miguel", "Miriam", "Mpho", "Nadia", "Naomi", "Nguyen", "Niamh", "Nikolai", "Noor", "Nkechi",
    "Oksana", "Olga", "Olumide", "Otto", "Owen", "Padma", "Pedro", "Penelope", "Philippa", "Piotr", "Priya",
    "Qasim", "Rajesh", "Rebecca", "Rhys", "Rohan", "Rosalind", "Rupert", "Ruth", "Samantha", "Santiago",
    "Saoirse", "Selma", "Shanice", "Sibusiso", "Siobhan", "Solveig", "Svetlana", "Takeshi", "Tatiana",
    "Theodora", "Thomas", "Tunde", "Ulrich", "Vanessa", "Vikram", "Vivian", "Wanjiru", "Wilhelmina",
    "Winston", "Wojciech", "Xiomara", "Xochitl", "Yasmin", "Yevgenia", "Yolanda", "Youssef", "Yvonne",
    "Zachary", "Zeynep", "Zhang", "Zsofia", "Constantinos", "Balakrishnan",
)  # fmt: skip

NAME_SYLLABLES: tuple[str, ...] = (
    "ba", "ri", "no", "ka", "le", "mi", "tor", "an", "el", "vi", "sa", "du", "jo", "fen", "wil", "mar",
    "ek", "osh", "ty", "gra", "ham", "ber", "na", "lo", "phi", "que", "ster", "ya", "zu", "rin", "dor",
    "cha", "ho", "ul", "ig", "be", "ro", "th", "wen", "il", "bra", "cor", "den", "fay", "gus",
    "ab", "ad", "ai", "al", "am", "ar", "as", "ay", "bel", "bo", "car", "ce", "cy", "da", "di", "dra", "ed",
    "en", "er", "fa", "fi", "flo", "gi", "gor", "gwen", "han", "hil", "in", "is", "ja", "je", "ki", "kwa",
    "la", "lei", "lu", "ma", "mo", "mu", "ne", "ni", "nu", "oh", "ol", "or", "pa", "pe", "pi", "ra", "ru",
    "san", "sha", "shi", "si", "sol", "su", "ta", "te", "ti", "tri", "un", "va", "vo", "wa", "xi", "yo",
    "yu", "zo", "zel",
)  # fmt: skip

NUMBER_WORDS: tuple[str, ...] = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
