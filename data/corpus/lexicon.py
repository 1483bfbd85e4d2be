"""The words of the pretraining corpus: verbs by meaning, things with related words, fields with their phrases.

It is a vocabulary, not a catalogue: `catalogues.py` draws entries from it at random, so that thousands of catalogues
exist and none can be remembered. Words are plain everyday English; the syllables at the end make words nobody has seen.
"""

from __future__ import annotations

import re


def _list(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split(","))


def _table(text: str) -> dict[str, tuple[str, ...]]:
    """Entries of the form `name: a, b, c;`, over as many lines as it takes."""
    rows = (row.split(":", 1) for row in text.split(";") if row.strip())
    return {" ".join(name.split()): _list(items) for name, items in rows}


# Verbs of one group mean the same. Entries are named after these; requests use any of the second table.
ENTRY_VERBS = _table(
    """
    get: get, check, show, read;
    find: find, search, locate;
    list: list;
    create: create, add, make;
    book: book, reserve, order;
    delete: delete, remove, cancel;
    update: update, change, move;
    send: send, share, forward;
    convert: convert, translate, turn;
    compute: calculate, compute, estimate;
    play: play, start, run;
    stop: stop, pause, close;
    set: set, adjust;
    track: track, follow, log;
    pay: pay, transfer;
    rate: rate, review, compare;
    call: call, contact, ring;
    save: save, store, keep;
    """
)
_ASKED_VERBS = _table(
    """
    get: get, check, show me, tell me, look up, give me, see, I want to know, I need to know, let me know, pull
        up, what is, what are, how is, do you know;
    find: find, search for, look for, locate, hunt for, is there, are there, where can I find, which, recommend,
        suggest;
    list: list, show me all, which are, what are all, give me a list of, run through;
    create: create, add, make, set up, put in, start, open, write, new, build, log;
    book: book, reserve, order, get me, arrange, I would like, I want, buy;
    delete: delete, remove, cancel, drop, erase, call off, get rid of, clear, throw out, take away;
    update: update, change, move, edit, shift, switch, adjust, rename, reschedule, alter, push;
    send: send, share, forward, mail, pass on, text, write, tell, message, let them have;
    convert: convert, translate, turn, change, express, put, what is, how much is;
    compute: calculate, compute, work out, estimate, figure out, what is, how much is, determine;
    play: play, start, put on, run, begin, launch, let us hear, fire up;
    stop: stop, pause, close, end, halt, shut, turn off, switch off, kill;
    set: set, adjust, put, bring, turn, make it, change, dim, raise, lower;
    track: track, follow, where is, trace, log, record, what happened to, note, keep an eye on, status of;
    pay: pay, transfer, send, wire, move, settle;
    rate: rate, review, compare, judge, score, weigh up;
    call: call, contact, ring, phone, reach, dial;
    save: save, store, keep, write down, remember, note down, jot down, file;
    """
)
VERBS = {group: (named, _ASKED_VERBS[group]) for group, named in ENTRY_VERBS.items()}

# A thing, and words that people use when they mean it.
THINGS = _table(
    """
    weather: forecast, rain, sunshine, how warm it is, conditions outside;
    temperature: degrees, heat, how hot it is;
    air quality: pollution, smog, clean air;
    wind: breeze, gusts, how windy it is;
    storm warning: storm alert, severe weather, warnings;
    sunrise: dawn, when the sun comes up, daylight;
    event: appointment, calendar entry, gathering, party;
    meeting: appointment, session, talk with the team;
    reminder: nudge, alert, memo;
    alarm: wake-up, buzzer, wake me;
    timer: countdown, stopwatch, minutes to count down;
    calendar: schedule, agenda, diary, plans;
    task: to-do, chore, job to do;
    note: memo, jotting, scribble;
    message: text, word, line;
    email: mail, letter, inbox message;
    contact: phone number, address book entry, person's details;
    voicemail: recorded message, missed call message;
    flight: plane, airline ticket, plane ticket, fly;
    hotel: room, place to stay, lodging, accommodation;
    train: rail, railway ticket, train ride;
    bus: coach, bus line, bus ride;
    taxi: cab, ride, driver, lift;
    car: vehicle, rental car, wheels;
    route: directions, way, how to get there, path;
    distance: how far it is, length, kilometers;
    traffic: jams, congestion, roads;
    parking: parking spot, place to park, garage;
    map: atlas, chart, street view;
    visa: entry permit, travel papers;
    luggage: bags, suitcase, baggage;
    restaurant: place to eat, diner, bistro, dinner place;
    table: seats, dinner reservation, spot for dinner;
    recipe: how to cook, dish, cooking instructions;
    ingredient: what goes into a dish, food item;
    pizza: pie, slice;
    meal: food, lunch, dinner, breakfast;
    menu: card, dishes on offer;
    calories: energy, nutrition, how fattening it is;
    coffee: espresso, latte, brew;
    song: track, tune, music;
    playlist: mix, song list, music list;
    lyrics: words of a song, song text;
    album: record, release;
    concert: gig, live show, tour dates;
    podcast: episode, audio show;
    movie: film, picture, what is on at the cinema;
    show: series, television program, season;
    book: novel, title to read, author's work;
    ticket: seat, admission, entry;
    game: match, fixture, play;
    score: result, who won, final;
    team: club, squad, side;
    player: athlete, striker, footballer;
    standings: table, ranking, league positions;
    light: lamp, bulb, brightness;
    thermostat: heating, heater, room temperature;
    door: lock, gate, front door;
    camera: video feed, webcam, recording;
    vacuum: robot cleaner, hoover, cleaning;
    oven: stove, baking, cooker;
    window: blinds, curtains, shutters;
    speaker: sound, audio, box;
    volume: loudness, sound level, how loud it is;
    stock price: share price, stock, shares, quote;
    exchange rate: currency rate, money rate, how much it is worth;
    currency: money, dollars, euros, cash;
    balance: account, funds, how much is left;
    payment: transfer, bill, transaction;
    invoice: bill, statement, amount due;
    loan: mortgage, credit, monthly rate;
    budget: spending limit, spending plan;
    expense: cost, spending, what was spent;
    tax: duty, levy, what is owed;
    tip: gratuity, service charge;
    interest: yield, growth of savings;
    product: item, article, goods;
    order: purchase, delivery, parcel;
    package: parcel, shipment, delivery;
    price: cost, how much it is, rate;
    coupon: discount, voucher, deal;
    cart: basket, shopping bag, shopping list;
    refund: money back, return, repayment;
    review: rating, opinion, feedback;
    text: sentence, phrase, wording, words;
    language: tongue, speech, which language it is;
    definition: meaning, what a word means, sense;
    synonym: similar word, word with the same meaning;
    spelling: typos, how it is spelled, mistakes;
    summary: short version, gist, main points;
    unit: measure, miles, pounds, length;
    number: figure, digit, value;
    area: surface, size, square meters;
    percentage: share, percent, fraction;
    average: mean, middle value;
    fact: knowledge, trivia, something to know;
    article: page, entry, piece, wiki page;
    web page: site, website, link;
    document: paper, file, report;
    file: document, attachment, data;
    folder: directory, place for files;
    image: picture, photo, drawing;
    video: clip, recording, movie clip;
    password: login, secret, access code;
    steps: walking, how much I walked, activity;
    workout: exercise, training, run, gym session;
    sleep: rest, night, hours in bed;
    heart rate: pulse, beats per minute;
    weight: kilos, mass, pounds;
    medicine: pill, drug, dose, tablet;
    doctor: physician, clinic, checkup;
    symptom: illness, pain, complaint;
    water: drinks, glasses, hydration;
    news: headlines, latest stories, what happened;
    issue: bug, problem, ticket;
    project: work, plan, undertaking;
    employee: colleague, staff member, coworker;
    salary: pay, wage, earnings;
    vacation: leave, time off, days off, holiday;
    report: overview, analysis, write-up;
    server: machine, host, computer;
    database: records, stored data, data store;
    user: account, member, login;
    country: nation, state, land;
    city: town, place, capital;
    population: how many people live there, inhabitants;
    time zone: clock, local time, what time it is;
    holiday: public holiday, day off, festival;
    museum: gallery, exhibition, collection;
    park: garden, green space, playground;
    school: college, university, class;
    course: lesson, class, training;
    job: position, opening, vacancy;
    house: home, flat, apartment;
    pet: animal, dog, cat;
    plant: flower, tree, watering;
    star: planet, night sky, astronomy;
    joke: something funny, laugh, pun;
    quote: saying, words of wisdom;
    color: shade, hue, tint;
    horoscope: zodiac, star sign;
    dice: roll, random number, throw;
    battery: charge, power level, how full it is;
    printer: printing, copy, paper output;
    survey: poll, questionnaire, vote;
    subscription: plan, membership, abo;
    repair: fix, service, maintenance;
    electricity: power, energy use, consumption;
    bike: bicycle, cycle, two-wheeler;
    ferry: boat, ship, crossing;
    fuel: petrol, gas, diesel;
    earthquake: quake, tremor, shaking;
    booking: reservation, what I booked, booked trip;
    headline: news, top story, what is new in the world;
    free time: gap, free slot, time that is not taken;
    charger: charging station, plug, place to charge;
    screening: showtime, showing, when it is shown;
    rating: how good people find it, stars, opinion;
    blinds: shades, shutters, curtains;
    appliance: machine, washer, dryer;
    nearby place: pharmacy, supermarket, bank, post office, hospital;
    phone call: number, caller, unknown caller;
    tide: sea level, high water, low water;
    """
)

# Past participles, for requests that say what should be done to a thing.
DONE = _table(
    """
    create: created, added, made, put in;
    book: booked, reserved, ordered;
    delete: deleted, removed, cancelled, erased;
    update: updated, changed, moved;
    send: sent, shared, passed on;
    convert: converted, turned into something else;
    compute: calculated, worked out;
    play: played, started;
    stop: stopped, closed, turned off, switched off;
    set: set, adjusted;
    track: tracked, followed, traced;
    pay: paid, transferred;
    rate: rated, reviewed, compared;
    save: saved, stored, kept, written down;
    """
)

# A field: its kind of value, then the phrases that fill it in a request. {} is the value's place, {f} the field's name.
FIELDS = {
    name: (kind, phrases)
    for name, (kind, *rest) in _table(
        """
    city: place, in {}, for {}, in the city of {}, around {}, near {}, at {};
    location: place, in {}, at {}, near {}, around {}, close to {};
    place: place, in {}, at {}, for {}, near {};
    country: place, in {}, of {}, for {}, from {};
    origin: place, from {}, starting in {}, leaving {}, out of {};
    destination: place, to {}, going to {}, headed for {}, into {};
    address: address, at {}, to {}, to the address {};
    date: date, on {}, for {}, for the date {}, by {};
    day: date, on {}, for {}, for the day {};
    start_date: date, from {}, starting {}, as of {};
    end_date: date, until {}, to {}, through {};
    time: time, at {}, for {}, around {};
    due: date, due {}, by {}, before {};
    person: person, for {}, with {}, from {}, of {};
    name: title, called {}, named {}, with the name {}, by the name of {};
    recipient: person, to {}, for {}, addressed to {};
    contact: person, to {}, with {}, of {};
    author: person, by {}, from {}, written by {};
    artist: person, by {}, from {}, of {};
    owner: person, of {}, owned by {}, for {};
    guest: person, with {}, for {}, inviting {};
    title: title, called {}, titled {}, with the title {}, named {}, {};
    subject: title, about {}, on {}, with the subject {}, regarding {};
    topic: title, about {}, on {}, on the topic of {}, regarding {};
    query: title, about {}, for {}, on {}, {};
    text: words, saying {}, that says {}, with the text {}, {}, reading {};
    message: words, saying {}, that says {}, with the message {}, that {};
    note: words, saying {}, with the note {}, noting {};
    item: title, of {}, {}, for {}, with {};
    product: title, of {}, {}, for {}, for the product {};
    company: title, of {}, for {}, at {}, from {};
    symbol: code, of {}, for {}, under {};
    code: code, with the code {}, for code {}, of {}, {};
    order_id: code, with number {}, for order {}, numbered {}, {};
    flight: code, for flight {}, of {}, on {};
    room: title, in the {}, in {}, for the {}, of the {};
    device: title, of the {}, on the {}, for the {};
    team: title, of {}, for {}, from team {};
    language: title, into {}, to {}, in {};
    word: word, of {}, for {}, of the word {}, for the word {};
    category: word, in the category {}, of the kind {}, from {}, under {};
    genre: word, from the genre {}, of the genre {}, that is {};
    color: word, in {}, colored {}, to {};
    cuisine: word, serving {}, with {} food, that does {};
    email: email, at {}, to {}, for {}, with the email {};
    phone: phone, at {}, on {}, with the number {};
    url: url, at {}, from {}, of {};
    file: file, called {}, {}, in {}, of {};
    folder: word, in the folder {}, in {}, to {};
    days: integer, for {} days, for the next {} days, over {} days, {} days long;
    people: integer, for {} people, for {}, for a party of {}, with {} people;
    count: integer, with {} results, limited to {}, at most {}, the top {};
    nights: integer, for {} nights, staying {} nights, {} nights;
    minutes: integer, for {} minutes, of {} minutes, lasting {} minutes, {} minutes long;
    hours: integer, for {} hours, of {} hours, lasting {} hours;
    quantity: integer, {} of them, {} pieces, {} times, in a quantity of {};
    level: integer, to {}, to {} percent, at level {}, at {};
    amount: number, of {}, worth {}, in the amount of {}, {};
    price: number, under {}, at {}, for {}, for less than {};
    temperature: integer, to {} degrees, at {} degrees, at {}, to {};
    distance: number, of {} km, within {} km, over {} km;
    year: year, from {}, in {}, of the year {}, for {};
    weight: number, of {} kg, weighing {} kg, at {} kg;
    percent: integer, of {} percent, at {} percent, by {} percent;
    expression: sum, {}, of {}, for {};
    rating: integer, with {} stars, rated {}, of at least {} stars;
        """
    ).items()
    for phrases in [tuple(rest)]
}

# Closed sets of values, which the field's schema shows, and their phrases.
_CHOICES = _table(
    """
    unit: celsius, fahrenheit, kelvin, metric, imperial;
    size: small, medium, large, huge;
    priority: low, normal, high, urgent;
    mode: driving, walking, cycling, transit;
    status: open, closed, done, pending;
    period: day, week, month, year;
    sort: price, rating, distance, date;
    format: pdf, csv, html, json;
    class: economy, business, first;
    state: on, off;
    repeat: daily, weekly, monthly;
    meal: breakfast, lunch, dinner;
    direction: north, south, east, west;
    mood: happy, calm, sad, focused;
    """
)
_CHOICE_PHRASES = _table(
    """
    unit: in {}, using {}, as {};
    size: in {}, size {}, {};
    priority: with {} priority, as {}, at {} priority;
    mode: by {}, {}, when {};
    status: that is {}, marked {}, as {};
    period: for the {}, over the {}, per {};
    sort: sorted by {}, by {}, ordered by {};
    format: as {}, in {}, as a {} file;
    class: in {}, flying {}, in {} class;
    state: {}, to {};
    repeat: {}, repeating {}, every time {};
    meal: for {}, as {}, at {};
    direction: going {}, to the {}, towards {};
    mood: that is {}, for a {} mood, when I feel {};
    """
)
CHOICES = {name: (choices, _CHOICE_PHRASES[name]) for name, choices in _CHOICES.items()}

# Openings and closings of a request that change nothing about what is asked; often there is none.
OPENINGS = (
    *[""] * 6,
    *("Please ", "Can you ", "Could you ", "I need you to ", "Would you ", "Hi, ", "Hello, please ", "Hey, "),
    *("I want you to ", "Now ", "Quickly ", "Go ahead and ", "Help me: ", "Kindly ", "OK, ", "Next, "),
    *("Time to ", "I have to ", "We should "),
)
CLOSINGS = (
    *[""] * 6,
    *(" please", " for me", " now", " thanks", " today if you can", " when you can", " right away", " will you"),
)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Words for values and for sentences that are only copied.
WORDS = _words(
    """
    apple river stone cloud paper garden silver morning winter summer autumn spring blue green red yellow black white
    golden bright dark quiet loud small large old new fresh cold warm sweet bitter salty happy sad calm brave gentle
    quick slow early late north south east west left right open mountain forest ocean island valley desert bridge
    tower castle market station harbor airport library hospital kitchen office bedroom bathroom hall cellar attic
    table chair lamp mirror carpet pillow blanket bottle glass cup plate spoon fork knife basket box bag wallet key
    phone laptop tablet screen keyboard mouse charger cable headphones radio clock watch ring necklace shirt jacket
    coat hat scarf glove shoe boot sock dress bread butter cheese milk egg flour sugar salt pepper onion garlic tomato
    potato carrot cucumber lettuce spinach mushroom bean rice pasta noodle soup salad sandwich burger steak chicken
    fish salmon tuna shrimp tofu curry cake cookie pie chocolate vanilla lemon orange banana grape berry dog cat horse
    cow sheep goat pig rabbit fox wolf bear lion tiger monkey eagle owl duck swan whale shark dolphin turtle frog
    spider ant bee rose tulip daisy lily oak pine maple willow grass leaf root seed branch flower weekly monthly daily
    plan review budget team client project launch design meeting report call lunch dinner breakfast party birthday
    wedding trip holiday visit doctor dentist gym yoga run swim walk climb dance sing draw paint write read study
    teach learn cook bake clean wash repair build drive fly sail travel play win lose laugh cry think dream sleep wake
    buy sell pay send meet bring take leave arrive start finish pick up drop off water feed charge print sign check
    fix close lock final first second third last next jazz rock pop folk soul metal classical techno history science
    physics biology chemistry math geography music art poetry economics politics sports football tennis hockey chess
    golf running cycling climate energy solar engine rocket planet galaxy space robot software network security unread
    support another between still current latest coming whether somebody someone something anything everything
    electric public private family friend neighbor boss group person people child mother father brother sister woman
    man world street corner center floor level house garage moment minute hour week weekend year past future again
    already always never often together alone enough more less most other some many few better worse best worst good
    bad free busy cheap expensive easy difficult broken ready empty full heavy tired hungry thirsty missing lost found
    waiting needs costs shows plays leaves arrives opens closes keeps says means works stays runs looks feels help
    reason mistake idea story chance choice update version module server backup error login page button form index
    model data test result value total number list
    """
)

# Syllables are few and short, so that an invented word is two or three tokens.
ONSETS = _words("b br ch d dr f fl g gr h j k kl l m n p pl r s sh sk sl st t tr v w y z")
VOWELS = _words("a e i o u")
CODAS = ("", "", "", *_words("b d g k l m n ng p r rn s sh st t x"))


def vocabulary() -> list[str]:
    """Every word of the corpus that means something, sorted."""
    phrases = [*WORDS, *OPENINGS, *CLOSINGS]
    for entry_verbs, asked_verbs in VERBS.values():
        phrases += [*entry_verbs, *asked_verbs]
    for thing, related in THINGS.items():
        phrases += [thing, *related]
    for field, (_, forms) in FIELDS.items():
        phrases += [field.replace("_", " "), *forms]
    for field, (choices, forms) in CHOICES.items():
        phrases += [field, *choices, *forms]
    return sorted({word for phrase in phrases for word in re.findall("[A-Za-z]+", phrase)})
