"""The values that fill arguments and results, in pools; the values of training and of the test set never meet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Value = str | int | float


@dataclass(frozen=True, slots=True)
class Pool:
    """Values of one sort, as an argument holds them. No value of `test` occurs in `train`."""

    name: str
    train: tuple[Value, ...]
    test: tuple[Value, ...]

    @property
    def type(self) -> str:
        """The JSON Schema type that all values of the pool have."""
        kinds = {type(value) for value in self.train + self.test}
        if kinds == {int}:
            return "integer"
        return "number" if kinds <= {int, float} else "string"


def _split(text: str) -> tuple[str, ...]:
    """The values of a list separated by commas, over as many lines as it takes."""
    return tuple(" ".join(part.split()) for part in text.split(",") if part.strip())


def _join(pattern: str, first: str, second: str) -> tuple[str, ...]:
    """The pattern filled with every pair of a value of `first` and one of `second`."""
    return tuple(pattern.format(one, two) for one in _split(first) for two in _split(second))


def _listed(name: str, train: str, test: str) -> Pool:
    """A pool that is written out."""
    return Pool(name, _split(train), _split(test))


def _joined(name: str, pattern: str, train: tuple[str, str], test: tuple[str, str]) -> Pool:
    """A pool of combinations. The parts that vary most differ between training and test."""
    return Pool(name, _join(pattern, *train), _join(pattern, *test))


def _spread(name: str, values: Iterable[Value]) -> Pool:
    """A pool of a range, of which every third value is kept for the test set."""
    kept = tuple(values)
    return Pool(name, tuple(v for n, v in enumerate(kept) if n % 3 != 1), kept[1::3])


def _codes(name: str, letters: tuple[str, str], low: int, step: int, count: int) -> Pool:
    """A pool of codes such as A4417: other letters in the test set, and other numbers."""
    train, test = (_split(text) for text in letters)
    return Pool(
        name,
        tuple(f"{train[n % len(train)]}{low + step * n}" for n in range(count)),
        tuple(f"{test[n % len(test)]}{low + step * n + step // 2}" for n in range(count // 2)),
    )


_PLACES_AND_PEOPLE = (
    _listed(
        "city",
        """Oslo, Lima, Paris, Rome, Madrid, Berlin, Vienna, Prague, Warsaw, Athens, Cairo, Tokyo, Seoul, Delhi,
        Mumbai, Sydney, Dublin, London, Lisbon, Porto, Milan, Naples, Turin, Munich, Hamburg, Cologne, Zurich, Geneva,
        Brussels, Antwerp, Amsterdam, Stockholm, Helsinki, Riga, Tallinn, Budapest, Sofia, Bucharest, Istanbul,
        Ankara, Dubai, Bangkok, Hanoi, Manila, Jakarta, Singapore, Beijing, Shanghai, Osaka, Nairobi, Lagos, Accra,
        Tunis, Boston, Chicago, Denver, Dallas, Houston, Seattle, Miami, New York, San Diego, Toronto, Montreal,
        Mexico City, Bogota, Santiago, Buenos Aires, Sao Paulo, Cape Town""",
        """Bergen, Copenhagen, Krakow, Valencia, Lyon, Marseille, Florence, Venice, Salzburg, Dresden, Rotterdam,
        Glasgow, Belfast, Zagreb, Vilnius, Kyoto, Busan, Chennai, Melbourne, Perth, Casablanca, Dakar, Portland,
        Phoenix, Atlanta, Vancouver, Ottawa, Quito, San Jose, Havana""",
    ),
    _listed(
        "country",
        """Norway, Sweden, France, Spain, Italy, Germany, Austria, Poland, Greece, Egypt, Japan, India, Australia,
        Ireland, Portugal, Belgium, Finland, Latvia, Hungary, Turkey, Thailand, Vietnam, Indonesia, China, Kenya,
        Nigeria, Ghana, Tunisia, Canada, Mexico, Colombia, Chile, Argentina, Brazil, South Africa, New Zealand,
        Iceland, Malta, Nepal, Jordan""",
        """Denmark, Estonia, Croatia, Romania, Scotland, Morocco, Senegal, South Korea, Malaysia, Peru, Ecuador, Cuba,
        Slovenia, Cyprus, Bolivia, Uganda, Mongolia, Sri Lanka, Jamaica, Luxembourg""",
    ),
    _listed(
        "person",
        """Anna, Ben, Carla, David, Emma, Frank, Grace, Henry, Ivan, Julia, Karl, Laura, Mark, Nina, Oscar, Paula,
        Robert, Sara, Tom, Vera, Walter, Alice, Bruno, Chloe, Daniel, Elena, Felix, Hanna, Jack, Kate, Leo, Maria,
        Noah, Olga, Peter, Rosa, Simon, Tina, Victor, Zoe, Mum, Dad, Grandma, Anna Berg, Ben Carter, Carla Diaz, David
        Stone, Emma Lindqvist, Frank Moore, Grace Okafor, Henry Walsh, Ivan Petrov, Julia Klein, Karl Jensen, Laura
        Rossi, Mark Taylor, Nina Patel, Oscar Lund, Paula Gomez, Robert Hill, Sara Ahmed, Tom Baker, Vera Novak,
        Walter Young""",
        """Adam, Bella, Conrad, Diana, Erik, Fiona, George, Helen, Isaac, Joan, Kevin, Linda, Martin, Nora, Omar,
        Priya, Ruth, Stefan, Uncle Ray, Aunt May, Adam Cole, Bella Fontana, Diana Cruz, Erik Dahl, Fiona Grant, George
        Mwangi, Helen Marsh, Joan Silva, Kevin Doyle, Nora Haddad, Omar Farouk, Priya Nair, Stefan Vogel""",
    ),
    Pool(
        "address",
        tuple(
            f"{number} {street}"
            for place, street in enumerate(
                _split(
                    """Oak Street, Mill Lane, Station Road, King Street, Garden Avenue, River Road, Church Lane, Hill
                    Street, Market Square, Park Avenue, Bridge Street, School Lane, Forest Road, Lake Drive, Castle
                    Street, North Road, Sunset Drive, Cherry Lane, Main Street, Harbour Road, Rose Avenue, Green
                    Lane"""
                )
            )
            for number in (3 + 2 * place, 14 + 5 * place, 120 + 7 * place)
        ),
        tuple(
            f"{number} {street}"
            for place, street in enumerate(
                _split(
                    """Elm Street, Abbey Road, Queen Street, Orchard Lane, Valley Drive, Windmill Road, Maple Avenue,
                    Temple Street, South Parade, Beach Road, Fountain Square, Willow Lane, West Drive, Tower Street"""
                )
            )
            for number in (6 + 3 * place, 45 + 8 * place)
        ),
    ),
    _joined(
        "email",
        "{}@{}",
        (
            """anna, ben, carla.diaz, d.stone, emma, frank, grace, office, sales, support, info, julia.klein, karl,
            team, hello""",
            "example.com, mail.example, post.test, work.example",
        ),
        (
            "adam, bella, d.cruz, erik.dahl, contact, billing, press, nora",
            "firm.example, letters.test, studio.example, home.test",
        ),
    ),
    _spread("phone", (f"555-0{100 + 7 * n}" for n in range(100))),
    _joined(
        "restaurant",
        "{} {}",
        (
            "Golden, Blue, Old, Little, Happy, Red, Silver, Green, Royal, Lucky",
            "Lion, Table, Fork, Garden, Kitchen, Olive, Dragon",
        ),
        ("Copper, White, Quiet, Hungry, Grand, Salty", "Spoon, Whale, Fox, Corner, Lantern"),
    ),
    _listed(
        "room",
        """kitchen, bedroom, bathroom, living room, hall, garage, office, attic, basement, dining room, guest room,
        balcony, nursery, laundry room, study, corridor, cellar, playroom, music room, main bedroom""",
        "library, sun room, porch, workshop, pantry, utility room, den, upstairs hall, games room, small bedroom",
    ),
    _listed(
        "team",
        """Red Wolves, Blue Sharks, City Lions, River Hawks, Golden Bears, North Stars, Iron Bulls, Green Dragons,
        Storm, Thunder, Night Owls, Black Panthers, White Tigers, Rockets, Rangers, Royals, Pirates, Mountain Goats,
        Bay Dolphins, Desert Foxes, Silver Knights, Comets, Giants, Union Town, Harbor Kings, Valley Eagles, Lake
        Monsters, Arrows, Vikings, Cobras""",
        """Flying Horses, Purple Cats, Steel Hammers, Ocean Rays, Forest Rebels, Snow Leopards, Hornets, Captains,
        Meteors, Wild Boars, Old Town, Coast Gulls, Falcons, Warriors, Spartans, Copper Kings""",
    ),
)

_WORKS = (
    _joined(
        "book",
        "The {} {}",
        (
            "Last, Silent, Broken, Hidden, Lost, Golden, Paper, Winter, Secret, Long",
            "Garden, Letter, House, Sea, Road, King, Island",
        ),
        ("Second, Hollow, Glass, Forgotten, Summer, Burning", "Orchard, Bridge, Painter, Clock, Voyage"),
    ),
    _joined(
        "film",
        "{} {}",
        (
            "Midnight, Dark, Falling, Electric, Wild, Lonely, Red, Final, Frozen, Endless",
            "River, Train, City, Heart, Planet, Summer, Detective",
        ),
        ("Crystal, Savage, Distant, Neon, Stolen, Rising", "Empire, Horizon, Dancer, Signal, Harvest"),
    ),
    _joined(
        "song",
        "{} {}",
        (
            "Dancing, Running, Waiting, Singing, Dreaming, Walking, Crying, Flying, Driving, Falling",
            "Alone, Home, in the Rain, Tonight, Again, by the Sea, Under Stars",
        ),
        ("Sleeping, Burning, Drifting, Laughing, Swimming, Turning", "Away, at Dawn, in Silence, Forever, Over Water"),
    ),
    _listed(
        "artist",
        """The Paper Kites Club, Mara Vale, Johnny Copper, Silver Echo, The Night Bakers, Lola Finch, Blue Motel, Ada
        and the Waves, Red Lanterns, Tommy Quill, Velvet Station, The Lost Umbrellas, Nina Starling, DJ Pepper, Old
        Harbour Band, Luna Park Trio, Sam Rivers Jr, The Wooden Hearts, Coral Sky, Max Thunder, Ivy Lane, Electric
        Garden, Rosie Bell, The Quiet Giants, Kings of Dust, Milo Grey, Desert Radio, Clara Moon, Tin Soldiers, Paper
        Planets, The Lemon Trees Duo, Jasper Holt, Golden Hour Choir, Wild Ferns, Stella Frost, Iron Violets, The Slow
        Trains, Benny Marlow, Glass Rivers, Hazel Dawn""",
        """The Amber Foxes, Otto Bright, Marble Sky, June Harlow, Second Floor, The Tall Ships Crew, Penny Vox,
        Northern Lamps, Dexter Blaine, Cloud Factory, Olive Strand, The Broken Clocks, Ruby Tanner, Salt and Maple,
        Hollow Drums, Theo Lark, Winter Circus, Gemma Rhodes, Space Gardeners, Little Harbor""",
    ),
    _listed(
        "genre",
        """rock, jazz, pop, folk, soul, blues, country, classical, metal, punk, reggae, techno, house, funk, dance,
        hip hop, choir, piano, disco, gospel""",
        "swing, salsa, grunge, samba, flamenco, trance, dub, bluegrass, tango, lounge",
    ),
    _joined(
        "playlist",
        "{} {}",
        (
            "Morning, Evening, Summer, Winter, Workout, Road Trip, Party, Rainy Day, Study, Sunday",
            "Mix, Songs, Hits, Mood, Favourites, Sounds",
        ),
        ("Dinner, Beach, Gym, Late Night, Office, Autumn", "Tunes, Vibes, Beats, Classics, Collection"),
    ),
    _listed(
        "topic",
        """black holes, the Roman Empire, solar power, coffee, volcanoes, whales, chess, the French Revolution,
        photosynthesis, bees, robots, the Silk Road, climate change, dinosaurs, vaccines, jazz history, coral reefs,
        gravity, the Cold War, pyramids, football, electric cars, the stock market, space travel, elections,
        gardening, nutrition, sleep, glaciers, wolves, sharks, tea, chocolate, printing, bridges, railways, comets,
        tides, earthquakes, penguins, silk, the Vikings, machine learning, batteries, wind energy, housing, education,
        health care, tourism, movies, recycling, rivers, mushrooms, cheese, ballet, opera, marathons, cycling,
        sailing, castles""",
        """the Moon landing, lightning, elephants, the Industrial Revolution, genetics, honey, origami, tornadoes,
        submarines, the Aztecs, quantum computers, salt, owls, steam engines, lighthouses, nuclear energy, trade,
        farming, tennis, migration, the Renaissance, magnets, bamboo, rainforests, satellites, basketball, banking,
        theatre, deserts, eclipses""",
    ),
)

_THINGS = (
    _joined(
        "product",
        "{} {}",
        (
            "wooden, red, small, cheap, warm, light, large, blue, leather, cotton",
            "chair, lamp, jacket, backpack, desk, blanket, bag, hat, sofa, belt",
        ),
        ("steel, green, soft, folding, black, striped", "table, kettle, sweater, pillow, mirror, scarf"),
    ),
    _listed(
        "dish",
        """chicken soup, apple pie, lasagna, mushroom risotto, beef stew, fish tacos, pancakes, vegetable curry, pad
        thai, onion soup, tomato salad, fried rice, lentil soup, banana bread, carrot cake, pizza, spaghetti,
        meatballs, sushi, roast chicken, potato salad, cheese omelette, chili, burritos, dumplings, ramen, falafel,
        hummus, goulash, waffles, chocolate cake, fish pie, noodle soup, bean salad, shepherds pie, stuffed peppers,
        garlic bread, egg sandwich, pumpkin soup, chicken curry, rice pudding, lemon tart, veggie burger, grilled
        salmon, corn chowder, brownies, cheesecake, oat cookies, beef tacos, pea soup""",
        """paella, tiramisu, moussaka, gnocchi, spring rolls, clam chowder, apple crumble, ratatouille, chicken pie,
        beetroot soup, shrimp curry, cauliflower cheese, nachos, ginger cookies, baked beans, duck noodles, plum cake,
        spinach quiche, lamb stew, tofu salad, crab cakes, peach cobbler, mango pudding, stuffed cabbage, walnut
        bread""",
    ),
    _listed(
        "cuisine",
        """Italian, French, Chinese, Japanese, Indian, Thai, Greek, Mexican, Spanish, Turkish, Vietnamese, Lebanese,
        vegan, vegetarian, seafood, American, German, Polish""",
        "Korean, Moroccan, Ethiopian, Peruvian, Cuban, Persian, Brazilian, Hungarian, Swiss, Nepalese",
    ),
    _listed(
        "medicine",
        """aspirin, ibuprofen, vitamin D, vitamin C, insulin, iron tablets, cough syrup, eye drops, antibiotics,
        allergy pills, zinc, fish oil, heart pills, paracetamol, magnesium, nose spray, folic acid, pain gel, thyroid
        pills, calcium, vitamin B12, ear drops, inhaler, skin cream, melatonin""",
        """vitamin E, antacid, blood pressure pills, throat drops, potassium, sleeping pills, probiotics, hay fever
        tablets, statins, steroid cream, cold medicine, omega capsules, vitamin K, knee gel, stomach drops""",
    ),
    _listed(
        "exercise",
        """running, swimming, cycling, yoga, rowing, boxing, hiking, walking, tennis, pilates, dancing, climbing,
        skiing, weight lifting, football, stretching, jumping rope, golf, basketball, sprinting, aerobics, push-ups,
        squats""",
        "skating, surfing, kayaking, badminton, karate, volleyball, spinning, sit-ups, jogging, judo, zumba, fencing",
    ),
    _joined(
        "file",
        "{}{}",
        (
            """report, budget, invoice, photo, notes, contract, plan, slides, letter, summary, menu, agenda, logo,
            resume""",
            ".pdf, .txt, _2024.xlsx, _final.docx, _v2.csv",
        ),
        ("memo, survey, receipt, map, draft, schedule, poster", ".png, _old.pdf, _2025.docx, _copy.txt"),
    ),
    _listed(
        "word",
        """brave, candle, gentle, journey, whisper, ancient, fragile, harvest, lantern, mirror, noble, ocean, patient,
        quiver, ripple, shadow, timid, urgent, velvet, wander, abundant, bitter, clever, dazzle, eager, famous,
        glimmer, honest, idle, jolly, keen, lively, modest, narrow, obscure, polite, quick, reluctant, sincere,
        tranquil, vivid, weary, anchor, barrel, compass, drizzle, ember, feather, gallop, humble, island, jungle,
        kindle, linger, meadow, nimble, orchard, pebble, rapid, scarce""",
        """stubborn, twilight, crisp, murmur, serene, bold, hollow, thrive, gloomy, peculiar, slender, vanish, wisdom,
        brisk, cautious, dwell, fierce, graceful, hasty, immense, lofty, mellow, novel, plunge, rustic, solemn,
        tender, utter, vast, wicked""",
    ),
    _listed(
        "language",
        """French, Spanish, German, Italian, Portuguese, Dutch, Swedish, Polish, Russian, Turkish, Greek, Arabic,
        Hindi, Japanese, Chinese, Thai, Finnish, Czech, Latin, Hebrew""",
        """Norwegian, Danish, Korean, Vietnamese, Swahili, Welsh, Irish, Hungarian, Romanian, Bengali, Icelandic,
        Croatian""",
    ),
    _listed(
        "currency",
        """USD, EUR, GBP, JPY, CHF, SEK, CAD, AUD, INR, CNY, BRL, MXN, ZAR, PLN, TRY, EGP, THB, SGD, dollars, euros,
        pounds, yen""",
        "NOK, DKK, KRW, HUF, CZK, NZD, HKD, PHP, KES, ISK, francs, rupees, pesos, crowns",
    ),
    Pool(
        "symbol",
        tuple(a + b + c for a in "ABDGKM" for b in "EIOR" for c in ("X", "NT", "LQ")),
        tuple(a + b + c for a in "FHTVZ" for b in "AUC" for c in ("P", "SW")),
    ),
    _codes("flight", ("KL, BA, AF, LH, SK, UA, IB, AZ", "TK, QF, EI, NH, OS"), 102, 26, 64),
    _codes("order", ("A, B, C, D, F", "P, R, S, W"), 4117, 86, 64),
    _codes("booking", ("BK, HT, RS", "JN, LX, VM"), 1203, 122, 60),
    _codes("ticket", ("T-, BUG-, OPS-", "REQ-, DEV-, FIX-"), 118, 14, 60),
    _codes("plate", ("KX, BD, RZ, MA", "LT, PW, GH, CN"), 2051, 134, 60),
)

_TEXTS = (
    _joined(
        "event",
        "{} {}",
        (
            "team, budget, project, sales, design, marketing, lunch, family, planning, weekly",
            "meeting, review, call, update, workshop, talk, session",
        ),
        ("product, board, client, training, hiring, safety", "briefing, check-in, demo, interview, dinner"),
    ),
    _joined(
        "message",
        "{} {}",
        (
            """I will be home, Dinner is ready, The train leaves, We can meet, The package arrives, I am leaving work,
            I can bring the keys, Please call me, You can have the tickets, The bus comes""",
            "at noon, in ten minutes, after lunch, before six, by the station, around nine, very soon",
        ),
        (
            """The doctor is free, My bus stops, We start cooking, The kids are done, I can pick you up, Bring your
            coat""",
            "after school, near the bridge, late tonight, in half an hour, before the show",
        ),
    ),
    _joined(
        "phrase",
        "{} {}",
        (
            "where is, I would like, thank you for, I am looking for, we need, how much is, I lost, please bring",
            "the train station, a cup of tea, the red book, my bag, a quiet room, the key, some bread, the bill",
        ),
        (
            "can you see, I forgot, we are waiting for, she likes, tell me about, he bought",
            "the old bridge, a glass of milk, the next bus, my umbrella, fresh fruit",
        ),
    ),
    _joined(
        "note",
        "{} is {}",
        (
            """the spare key, the charger, the passport, the blue umbrella, the bike lock, the gate card, the tent,
            the drill""",
            """under the mat, on the top shelf, in the blue box, behind the sofa, in the attic, next to the printer,
            with Leo, in the car""",
        ),
        (
            "the bus pass, the sewing kit, the garden hose, the camera, the ladder, the toolbox",
            "behind the shed, in the left drawer, by the window, with Aunt May, on the desk",
        ),
    ),
    _joined(
        "task",
        "{} {}",
        (
            "buy, clean, fix, order, paint, pack, sell, check, wash, collect",
            "the bike, the curtains, the printer, the tent, the boxes, the fence, the shelves",
        ),
        ("repair, move, sort, measure, return, replace", "the ladder, the tools, the carpet, the old phone, the gate"),
    ),
    _joined(
        "problem",
        "{} {}",
        (
            "login page, printer, search box, server, phone app, door badge, payment form, email, scanner, website",
            "does not load, is very slow, shows an error, is broken, keeps crashing, is offline",
        ),
        (
            "checkout page, projector, upload button, database, coffee machine, map view",
            "stopped working, looks wrong, needs a reset, is frozen, loses data",
        ),
    ),
    _joined(
        "subject",
        "{} {}",
        (
            "Invoice, Meeting, Holiday, Contract, Budget, Order, Travel, Party, Project, Rent",
            "details, update, plans, question, for May, summary",
        ),
        ("Delivery, Interview, Schedule, Payment, Survey, Moving", "news, results, for June, request, changes"),
    ),
    _joined(
        "query",
        "{} {}",
        (
            "latest news about, reviews of, prices of, history of, photos of, facts about, guides to, opinions on",
            """running shoes, the city museum, garden roses, electric bikes, old clocks, the national zoo, leather
            boots, wool carpets""",
        ),
        (
            "recent studies on, rules about, events about, stories about, videos of, fans of",
            "camping gear, the art gallery, tomato plants, wooden toys, the science park",
        ),
    ),
)

_TIMES_AND_NUMBERS = (
    Pool(
        "date",
        (
            *_split("today, tomorrow, next Monday, next Tuesday, next Friday, this Thursday, this Sunday, Monday"),
            *_split("Friday, Wednesday, 3 May, 12 June, 21 August, 4 October, 17 March, 30 January, 9 July"),
            *(f"2026-{month:02}-{day:02}" for month in range(1, 13) for day in (3, 8, 14, 21)),
        ),
        (
            *_split("next Wednesday, next Sunday, this Saturday, this Monday, Tuesday, Saturday, 6 April"),
            *_split("19 September, 2 December, 28 February, 11 May, 23 June"),
            *(f"2026-{month:02}-{day:02}" for month in range(1, 13) for day in (11, 26)),
        ),
    ),
    Pool(
        "time",
        (
            *(f"{hour}:{minute}" for hour in range(8, 22) for minute in ("00", "15", "30")),
            *_split("7 am, 8 am, 9 am, 10 am, 1 pm, 2 pm, 4 pm, 6 pm, 7 pm, 9 pm, noon"),
        ),
        (
            *(f"{hour}:{minute}" for hour in range(9, 22) for minute in ("10", "45")),
            *_split("6 am, 11 am, 3 pm, 5 pm, 8 pm, 10 pm, midnight"),
        ),
    ),
    _spread("days", range(2, 15)),
    _spread("guests", range(2, 13)),
    _spread("count", range(2, 26)),
    _spread("minutes", (*range(5, 60, 5), *range(60, 181, 10))),
    _spread("percent", range(5, 100, 5)),
    _spread("degrees", range(15, 28)),
    _spread("low", range(1, 30)),
    _spread("high", range(40, 200, 4)),
    _spread("price", range(15, 400, 6)),
    _spread("amount", (*range(10, 400, 9), *(n + 0.5 for n in range(12, 90, 5)))),
    _spread("length", (*range(3, 250, 7), *(n + 0.5 for n in range(2, 60, 4)))),
    Pool(
        "expression",
        tuple(f"{37 + 53 * n} {'*+-'[n % 3]} {11 + 17 * (n % 19)}" for n in range(72)),
        tuple(f"{64 + 59 * n} {'*-+'[n % 3]} {24 + 13 * (n % 17)}" for n in range(30)),
    ),
)

_RESULTS = (
    _listed(
        "sky",
        "sunny, cloudy, rainy, windy, foggy, clear, stormy, snowy, partly cloudy, cold and grey, dry, warm and dry",
        "misty, overcast, hazy, wet, cold and bright, mostly dry, mild, icy",
    ),
    _spread("temperature", range(-8, 36)),
    _listed(
        "gate",
        "A1, A4, A12, B2, B7, B15, C3, C9, C21, D5, D8, D14",
        "E2, E6, E11, F1, F9, G4",
    ),
    _spread("score", (f"{home}-{away}" for home in range(6) for away in range(6))),
    _spread("total", range(120, 9000, 97)),
    _spread("rating", (n / 10 for n in range(21, 50) if n % 10)),
    _listed(
        "meaning",
        """a thing made by hand, full of energy, very old, a slow walk, easy to break, a small light, not in a hurry,
        calm and kind, a place by the water, hard to find, ready to help, a short trip, a soft sound, full of
        colour""",
        """a kind of plant, quick to act, a deep feeling, without any noise, a wide open place, slow to change, very
        strong""",
    ),
    _listed(
        "foreign",
        """mela toru san, li bona verda, ke tamo ril, aso pel minta, du varo lesk, opa rini tol, sen bravi kuno, wel
        dasto im""",
        "nuro pa celin, vi toska bren, ola met siri, hanu del porto, ruk sama vey",
    ),
    _listed(
        "fact",
        """It is studied all over the world, It has a long history, It changed how people live, It is found in many
        places, It is older than most people think, It still surprises experts, It needs a lot of water, It began as a
        small idea""",
        """It is a popular subject at school, It takes years to learn, It grew quickly in recent times, It is loved by
        many""",
    ),
    _listed(
        "headline",
        """Prices fall again, New park opens, City plans more trains, Record crowd at festival, Experts agree on plan,
        Storm moves north, Local team wins cup, Museum shows rare find, Schools get new books, Power returns after
        storm""",
        """Bridge reopens early, Farmers hope for rain, Big firm hires hundreds, Young inventor wins prize, Ferry line
        is back""",
    ),
    _listed(
        "shop",
        """Corner House, Day and Night, City Point, Old Gate, The Blue Door, Central, Station Side, First Choice, Park
        View""",
        "Hill Top, The Green Sign, Market Row, River Bend, Good Care, East Side",
    ),
)

POOLS: dict[str, Pool] = {
    pool.name: pool for pool in (*_PLACES_AND_PEOPLE, *_WORKS, *_THINGS, *_TEXTS, *_TIMES_AND_NUMBERS, *_RESULTS)
}
