"""The tools of the built-in world, domain by domain: how each is asked for, asked about, answered, and what it returns.

A request template names the arguments it gives in braces; each value stands in it literally. Domains and single tools
marked as held out are offered in no training transcript.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from data.transcript import Tool
from data.world.values import POOLS
from data.world.wordings import BARE, MORE

# What fills an argument or a result field: the name of a pool, or the closed list of its values.
Source = str | tuple[str, ...]
Split = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class WorldTool:
    """A tool with all it takes to write transcripts about it.

    `slots` maps arguments to pools (the others are enums of the schema); `asks` holds the question for each required
    argument; `bare` (training, test) are requests that lack exactly one of them; `replies` (training, test) are final
    answers over required arguments and the fields of `result`.
    """

    tool: Tool
    domain: str
    slots: dict[str, str]
    train: tuple[str, ...]
    test: tuple[str, ...]
    asks: dict[str, str]
    bare: Split
    result: dict[str, Source]
    replies: Split
    held_out: bool = False


# The question that asks for an argument, unless a tool has a better one.
_ASKS = {
    "address": "What is the address?",
    "amount": "How much?",
    "artist": "Which artist?",
    "book": "Which book?",
    "booking": "What is the booking number?",
    "city": "Which city?",
    "date": "For which day?",
    "email": "To which email address?",
    "exercise": "Which exercise?",
    "file": "Which file?",
    "film": "Which film?",
    "guests": "For how many people?",
    "language": "Into which language?",
    "minutes": "How many minutes?",
    "order": "What is the order number?",
    "origin": "From where?",
    "destination": "To where?",
    "person": "To whom?",
    "product": "Which product?",
    "room": "Which room?",
    "task": "Which task?",
    "team": "Which team?",
    "text": "What should it say?",
    "ticket": "Which ticket?",
    "time": "At what time?",
    "title": "What is the title?",
    "topic": "On which topic?",
    "word": "Which word?",
}


def _property(source: Source, about: str | None) -> dict[str, Any]:
    """The schema of one argument."""
    shape = {"type": POOLS[source].type} if isinstance(source, str) else {"type": "string", "enum": list(source)}
    return shape | ({"description": about} if about else {})


def _tool(
    name: str,
    description: str,
    arguments: Mapping[str, Source],
    *,
    train: tuple[str, ...],
    test: tuple[str, ...],
    result: dict[str, Source],
    replies: Split,
    optional: tuple[str, ...] = (),
    about: Mapping[str, str] | None = None,
    asks: Mapping[str, str] | None = None,
    bare: Split = ((), ()),
    held_out: bool = False,
) -> WorldTool:
    """Write a tool down; `optional` names the arguments that may be left out, `about` describes those that need it."""
    required = [key for key in arguments if key not in optional]
    properties = {key: _property(source, (about or {}).get(key)) for key, source in arguments.items()}
    known = _ASKS | dict(asks or {})
    return WorldTool(
        tool=Tool(name, description, {"type": "object", "properties": properties, "required": required}),
        domain="",
        slots={key: source for key, source in arguments.items() if isinstance(source, str)},
        train=train + MORE.get(name, ()),
        test=test,
        asks={key: known[key] for key in required},
        bare=(bare[0] + BARE.get(name, ()), bare[1]),
        result=result,
        replies=replies,
        held_out=held_out,
    )


def _domain(name: str, *tools: WorldTool, held_out: bool = False) -> tuple[WorldTool, ...]:
    """The tools of one domain; `held_out` holds all of them out."""
    return tuple(replace(tool, domain=name, held_out=held_out or tool.held_out) for tool in tools)


_WEATHER = _domain(
    "weather",
    _tool(
        "get_weather",
        "Get the current weather in a city.",
        {"city": "city", "unit": ("celsius", "fahrenheit")},
        optional=("unit",),
        train=(
            "What is the weather in {city}?",
            "Tell me the current weather in {city}.",
            "Show the weather in {city} right now.",
            "How is the weather in {city}?",
            "Get me the weather in {city} in {unit}.",
            "What is the weather in {city} now, in {unit} please?",
        ),
        test=(
            "I am in {city}, what is the weather like at the moment?",
            "Current weather for {city}, please.",
            "Using {unit}, how is the weather over in {city}?",
        ),
        bare=(
            ("What is the weather like?", "How is the weather right now?"),
            ("Can you check the current weather?",),
        ),
        result={"sky": "sky", "temperature": "temperature"},
        replies=(
            ("It is {sky} in {city}, {temperature} degrees.", "The weather in {city}: {sky}, {temperature} degrees."),
            ("{city} has {temperature} degrees and it is {sky}.",),
        ),
    ),
    _tool(
        "get_forecast",
        "Get the weather forecast for the coming days.",
        {"city": "city", "days": "days"},
        optional=("days",),
        train=(
            "What is the forecast for {city}?",
            "Give me the weather forecast for {city}.",
            "Show me the coming weather in {city}.",
            "Get the forecast for {city} for {days} days.",
            "How will the weather be in {city} over the coming {days} days?",
            "I need the forecast of {days} days for {city}.",
        ),
        test=(
            "Do you have a forecast for the area of {city}?",
            "For the next {days} days, what is the forecast in {city}?",
            "How is the weather going to be in {city} in the coming days?",
        ),
        bare=(
            ("What is the forecast?", "Give me a forecast for the next few days."),
            ("How will the weather be in the coming days?",),
        ),
        result={"outlook": "sky", "highest": "temperature"},
        replies=(
            ("The forecast for {city} is {outlook}, up to {highest} degrees.", "{city} will be {outlook}."),
            ("Expect {outlook} in {city}, at most {highest} degrees.",),
        ),
    ),
    _tool(
        "get_air_quality",
        "Get how clean the air is in a city.",
        {"city": "city"},
        train=(
            "What is the air quality in {city}?",
            "How clean is the air in {city}?",
            "Check the air quality in {city}.",
            "Is the air in {city} clean today?",
            "Tell me how good the air is in {city}.",
            "Show the air quality for {city}, please.",
        ),
        test=(
            "I am going to {city}, is the air clean there?",
            "{city}: how is the quality of the air?",
            "Can you find out how clean the air of {city} is?",
        ),
        bare=(("How is the air quality?", "Is the air clean today?"), ("Can you check the air quality?",)),
        result={"quality": ("good", "fair", "poor")},
        replies=(
            ("The air in {city} is {quality}.", "{city} has {quality} air today."),
            ("Air quality for {city}: {quality}.",),
        ),
    ),
)

_CALENDAR = _domain(
    "calendar",
    _tool(
        "create_event",
        "Add a new event to the calendar.",
        {"title": "event", "date": "date", "time": "time"},
        optional=("time",),
        train=(
            "Add the {title} to my calendar for {date}.",
            "Create a calendar event called {title} for {date}.",
            "Put a new event for {date} in my calendar: {title}.",
            "Add a {title} event for {date} at {time}.",
            "Create an event for {date} at {time}, title {title}.",
            "Please put the {title} in my calendar, {date} at {time}.",
        ),
        test=(
            "My calendar needs a new event, {title}, planned for {date}.",
            "Can you plan the {title} for {date} at {time} in the calendar?",
            "There is a {title} at {time}, {date}, please add that event.",
        ),
        bare=(
            ("Add the {title} to my calendar.", "Create an event called {title}."),
            ("There is a new event, the {title}, please add it.",),
        ),
        result={"status": ("added",)},
        replies=(("The {title} is in your calendar.", "I added the {title} for {date}."), ("Done: {title}, {date}.",)),
    ),
    _tool(
        "cancel_event",
        "Cancel an event in the calendar.",
        {"title": "event"},
        asks={"title": "Which event?"},
        train=(
            "Cancel the {title}.",
            "Please cancel the {title} in my calendar.",
            "Remove the {title} from my calendar.",
            "Take the event {title} off my calendar.",
            "I cannot come, cancel the {title} event.",
            "Call off the {title}, please cancel it.",
        ),
        test=(
            "The {title} will not happen, so cancel it for me.",
            "Could the {title} event be removed from the calendar?",
            "My {title} has to be cancelled.",
        ),
        bare=(
            ("Cancel my event.", "Remove an event from my calendar."),
            ("One of my calendar events has to be cancelled.",),
        ),
        result={"status": ("cancelled",)},
        replies=(
            ("The {title} is {status}.", "I took the {title} off your calendar."),
            ("Your {title} was {status}.",),
        ),
    ),
    _tool(
        "move_event",
        "Move an event to another day.",
        {"title": "event", "date": "date"},
        asks={"title": "Which event?", "date": "To which day?"},
        train=(
            "Move the {title} to {date}.",
            "Please move my {title} event to {date}.",
            "Move my {title}: the new day is {date}.",
            "Can you move the {title} to another day, {date}?",
            "The {title} must move to {date}.",
            "Change the day of the {title} to {date}.",
        ),
        test=(
            "I would like the {title} moved to {date}.",
            "{date} is better for the {title}, please move it.",
            "Could the event {title} go to another day, say {date}?",
        ),
        bare=(
            ("Move the {title} to another day.", "I need to move the {title}."),
            ("Could the {title} be moved?",),
        ),
        result={"status": ("moved",)},
        replies=(
            ("The {title} is now for {date}.", "I moved the {title} to {date}."),
            ("{title}: {status} to {date}.",),
        ),
    ),
    _tool(
        "list_events",
        "List the events in the calendar of one day.",
        {"date": "date"},
        train=(
            "List my events for {date}.",
            "What events do I have for {date}?",
            "Show me the calendar for {date}.",
            "What is in my calendar for {date}?",
            "Read me the list of events for {date}.",
            "Which events are planned for {date}?",
        ),
        test=(
            "Do I have any events in the calendar for {date}?",
            "I want to see all my events for {date}.",
            "{date}: what events are there?",
        ),
        bare=(("List my events.", "What is in my calendar?"), ("I want to see my events.",)),
        result={"events": "event"},
        replies=(
            ("For {date} you have the {events}.", "There is one event: {events}."),
            ("You have a {events} then.",),
        ),
    ),
    _tool(
        "find_free_time",
        "Find free time in the calendar on a day.",
        {"date": "date", "minutes": "minutes"},
        optional=("minutes",),
        held_out=True,
        train=(
            "When am I free for {date}?",
            "Find free time in my calendar for {date}.",
            "Do I have any free time for {date}?",
            "Find {minutes} free minutes for {date}.",
            "I need {minutes} minutes of free time, look at {date}.",
            "Where is my calendar free for {date}?",
        ),
        test=(
            "Look for a free hour in the calendar for {date}.",
            "For {date}, when do I have {minutes} minutes free?",
            "Is there some free time for {date}?",
        ),
        bare=(("When am I free?", "Find some free time in my calendar."), ("Do I have free time?",)),
        result={"start": "time"},
        replies=(("You are free at {start}.", "There is free time at {start}."), ("For {date}: free from {start}.",)),
    ),
)

_MESSAGES = _domain(
    "messages",
    _tool(
        "send_message",
        "Send a text message to a person.",
        {"person": "person", "text": "message"},
        train=(
            "Send a message to {person}: {text}",
            "Text {person} the message: {text}",
            "Message {person} saying '{text}'.",
            "Send {person} this text message: {text}",
            "Please send the message '{text}' to {person}.",
            "Write a text to {person} that says: {text}",
        ),
        test=(
            "'{text}' is what I want to message to {person}.",
            "Can you send {person} a text with '{text}'?",
            "Let {person} know by message: {text}",
        ),
        bare=(
            ("Send a message to {person}.", "I want to text {person}."),
            ("Can you send {person} a message?",),
        ),
        result={"status": ("sent",)},
        replies=(
            ("Your message to {person} is {status}.", "I sent it to {person}."),
            ("Done, {person} has your text.",),
        ),
    ),
    _tool(
        "send_email",
        "Send an email to an address.",
        {"email": "email", "subject": "subject", "text": "message"},
        optional=("text",),
        asks={"subject": "What is the subject?"},
        train=(
            "Send an email to {email} with the subject {subject}.",
            "Email {email}, subject {subject}.",
            "Write an email to {email} about '{subject}'.",
            "Send {email} an email, subject {subject}, text: {text}",
            "Email {email} with subject '{subject}' and say: {text}",
            "Email to {email}, subject '{subject}', with the text '{text}'.",
        ),
        test=(
            "I want to send an email with the subject '{subject}', it goes to {email}.",
            "The email is for {email}, subject {subject}, and reads: {text}",
            "Could you email '{subject}' as a subject to {email}?",
        ),
        bare=(
            ("Send an email to {email}.", "Write an email with the subject {subject}."),
            ("I want to email {email}.",),
        ),
        result={"status": ("sent",)},
        replies=(
            ("The email to {email} is {status}.", "I sent '{subject}' to {email}."),
            ("Email {status}: {subject}.",),
        ),
    ),
    _tool(
        "get_unread_messages",
        "Get all messages that are not read yet.",
        {},
        train=(
            "Do I have unread messages?",
            "Show me my unread messages.",
            "Get my new messages.",
            "Which messages have I not read yet?",
            "Read me the messages that are new.",
            "Check if there are unread messages for me.",
        ),
        test=(
            "Are there any messages I have not read?",
            "I want to see everything unread in my messages.",
            "Did I get new messages today?",
        ),
        result={"sender": "person", "body": "message"},
        replies=(("{sender} wrote: {body}", "One new message from {sender}: {body}"), ("From {sender}: {body}",)),
    ),
    _tool(
        "block_number",
        "Block calls from a phone number.",
        {"number": "phone"},
        asks={"number": "Which phone number?"},
        train=(
            "Block the number {number}.",
            "Please block calls from {number}.",
            "I want to block {number}.",
            "Stop all calls from the phone number {number}.",
            "Put {number} on the block list.",
            "Block this phone number: {number}",
        ),
        test=(
            "{number} keeps calling, please block it.",
            "Can calls by {number} be blocked?",
            "No more calls from the number {number}, block them.",
        ),
        bare=(
            ("Block a number for me.", "I want to block a phone number."),
            ("Someone keeps calling, block the number.",),
        ),
        result={"status": ("blocked",)},
        replies=(("The number {number} is {status}.", "{number} cannot call you now."), ("I have {status} {number}.",)),
    ),
)

_TRAVEL = _domain(
    "travel",
    _tool(
        "search_flights",
        "Search flights to fly between two cities.",
        {"origin": "city", "destination": "city", "date": "date"},
        optional=("date",),
        train=(
            "Search flights from {origin} to {destination}.",
            "Find me a flight from {origin} to {destination}.",
            "I want to fly from {origin} to {destination}.",
            "Search for flights from {origin} to {destination} for {date}.",
            "Which flights go from {origin} to {destination}, leaving {date}?",
            "Find flights to {destination} from {origin} for {date}.",
        ),
        test=(
            "Are there flights to {destination} that leave from {origin}?",
            "Leaving {date}, I need a flight between {origin} and {destination}.",
            "Show all flights for {date} that start in {origin} and end in {destination}.",
        ),
        bare=(
            ("Find me a flight to {destination}.", "Search flights from {origin}."),
            ("Are there any flights to {destination}?",),
        ),
        result={"flight": "flight", "price": "price"},
        replies=(
            ("Flight {flight} costs {price}.", "I found {flight} to {destination} for {price}."),
            ("There is {flight} from {origin}, price {price}.",),
        ),
    ),
    _tool(
        "get_flight_status",
        "Get whether a flight is on time.",
        {"flight": "flight"},
        asks={"flight": "What is the flight number?"},
        train=(
            "Is flight {flight} on time?",
            "What is the status of flight {flight}?",
            "Check the status of {flight}.",
            "Tell me if flight {flight} is late.",
            "Get the flight status of {flight}.",
            "Has flight {flight} left on time?",
        ),
        test=(
            "I am waiting for flight {flight}, what is its status?",
            "Will {flight} arrive on time?",
            "{flight}: is that flight late?",
        ),
        bare=(("Is my flight on time?", "Check the status of my flight."), ("Is the flight late?",)),
        result={"status": ("on time", "delayed", "cancelled"), "gate": "gate"},
        replies=(
            ("Flight {flight} is {status}, gate {gate}.", "{flight} is {status}."),
            ("The status of {flight} is {status}.",),
        ),
    ),
    _tool(
        "book_hotel",
        "Book a hotel room in a city.",
        {"city": "city", "date": "date", "nights": "days"},
        asks={"date": "From which day?", "nights": "For how many nights?"},
        train=(
            "Book a hotel in {city} from {date} for {nights} nights.",
            "I need a hotel room in {city} for {nights} nights from {date}.",
            "Reserve a hotel in {city} for {nights} nights, starting {date}.",
            "Book me {nights} nights in a {city} hotel, arriving {date}.",
            "Get a hotel in {city}: {nights} nights, first day {date}.",
            "Please book {nights} hotel nights in {city}, from {date}.",
        ),
        test=(
            "Starting {date}, I stay {nights} nights in {city}, book the hotel.",
            "Can I have a room in a hotel in {city} from {date}, {nights} nights?",
            "I arrive {date} in {city} and want a hotel for {nights} nights.",
        ),
        bare=(
            ("Book a hotel in {city} for {nights} nights.", "I need a hotel in {city} from {date}."),
            ("Can you book a hotel from {date} for {nights} nights?",),
        ),
        result={"hotel": "shop", "booking": "booking"},
        replies=(
            ("I booked {hotel} in {city}, number {booking}.", "Your hotel is {hotel}, booking {booking}."),
            ("{hotel}, {nights} nights: booking {booking}.",),
        ),
    ),
    _tool(
        "cancel_booking",
        "Cancel a travel booking by its number.",
        {"booking": "booking"},
        train=(
            "Cancel booking {booking}.",
            "Please cancel my booking {booking}.",
            "I want to cancel the trip booked as {booking}.",
            "Cancel the travel booking with number {booking}.",
            "My plans changed, cancel booking {booking}.",
            "Remove my booking {booking}.",
        ),
        test=(
            "I will not travel, so booking {booking} must be cancelled.",
            "Can you cancel what I booked under {booking}?",
            "{booking} is the booking to cancel.",
        ),
        bare=(("Cancel my booking.", "I want to cancel a travel booking."), ("My booking must be cancelled.",)),
        result={"status": ("cancelled",)},
        replies=(
            ("Booking {booking} is {status}.", "I cancelled booking {booking}."),
            ("{booking} has been {status}.",),
        ),
    ),
    _tool(
        "search_trains",
        "Search trains between two cities.",
        {"origin": "city", "destination": "city", "date": "date"},
        optional=("date",),
        held_out=True,
        train=(
            "Search trains from {origin} to {destination}.",
            "Find a train from {origin} to {destination}.",
            "Which trains go from {origin} to {destination}?",
            "Find me a train from {origin} to {destination} for {date}.",
            "Search for trains to {destination} from {origin} for {date}.",
            "I want to take the train from {origin} to {destination}, leaving {date}.",
        ),
        test=(
            "Is there a train to {destination} that leaves from {origin}?",
            "Show me trains between {origin} and {destination}.",
            "Leaving {date}, I need a train from {origin} to {destination}.",
        ),
        bare=(
            ("Find me a train to {destination}.", "Search trains from {origin}."),
            ("Is there a train to {destination}?",),
        ),
        result={"departure": "time", "price": "price"},
        replies=(
            ("A train to {destination} leaves at {departure}.", "There is a train at {departure} for {price}."),
            ("{origin} to {destination}: {departure}, price {price}.",),
        ),
    ),
)

_FOOD = _domain(
    "food",
    _tool(
        "find_restaurant",
        "Find a restaurant in a city.",
        {"city": "city", "cuisine": "cuisine"},
        optional=("cuisine",),
        train=(
            "Find a restaurant in {city}.",
            "Where can I find a good restaurant in {city}?",
            "Find me a place to eat in {city}.",
            "Find {cuisine} restaurants in {city}.",
            "I want to eat {cuisine} food in {city}, find a restaurant.",
            "Show me {cuisine} restaurants in {city}.",
        ),
        test=(
            "I am hungry in {city}, which restaurant can you find?",
            "Is there a restaurant with {cuisine} dishes somewhere in {city}?",
            "{city} must have {cuisine} food, please find a restaurant.",
        ),
        bare=(
            ("Find me a restaurant.", "Where is a good restaurant?"),
            ("I am hungry, which restaurant can you find?",),
        ),
        result={"restaurant": "restaurant", "rating": "rating"},
        replies=(
            ("Try {restaurant}, rated {rating}.", "{restaurant} in {city} has a rating of {rating}."),
            ("In {city} I found {restaurant}.",),
        ),
    ),
    _tool(
        "book_table",
        "Book a table at a restaurant.",
        {"restaurant": "restaurant", "guests": "guests", "time": "time", "date": "date"},
        optional=("date",),
        asks={"restaurant": "At which restaurant?"},
        about={"guests": "number of people"},
        train=(
            "Book a table at {restaurant} for {guests} people at {time}.",
            "Reserve a table for {guests} at {restaurant}, {time}.",
            "I need a table for {guests} guests at {time} at {restaurant}.",
            "Book {restaurant} for {date} at {time}, a table for {guests}.",
            "Get us a table at {restaurant} for {date}, {guests} people, {time}.",
            "Table for {guests} at {restaurant} at {time}, please book it.",
        ),
        test=(
            "We are {guests} and want a table at {restaurant} at {time}.",
            "Can {restaurant} give us a table at {time}? We are {guests} people.",
            "Coming to {restaurant}: {guests} guests, {time}, {date}. Book the table.",
        ),
        bare=(
            ("Book a table at {restaurant} for {guests} people.", "Reserve a table for {guests} at {time}."),
            ("We want a table at {restaurant} at {time}.",),
        ),
        result={"booking": "booking"},
        replies=(
            ("Your table at {restaurant} is booked for {time}.", "Booked for {guests}, number {booking}."),
            ("{restaurant} expects {guests} people, booking {booking}.",),
        ),
    ),
    _tool(
        "find_recipe",
        "Find a recipe for a dish.",
        {"dish": "dish"},
        asks={"dish": "For which dish?"},
        train=(
            "Find a recipe for {dish}.",
            "How do I cook {dish}? Find a recipe.",
            "Show me a recipe for {dish}.",
            "I want to make {dish}, find me a recipe.",
            "Give me a good {dish} recipe.",
            "Get the recipe of {dish}.",
        ),
        test=(
            "Tonight I cook {dish}, which recipe is good?",
            "Is there an easy recipe to make {dish}?",
            "Look for a dish called {dish} and its recipe.",
        ),
        bare=(("Find me a recipe.", "I want to cook, show me a recipe."), ("Is there an easy recipe?",)),
        result={"minutes": "minutes", "source": "shop"},
        replies=(
            ("{source} has a recipe for {dish} of {minutes} minutes.", "This {dish} takes {minutes} minutes."),
            ("For {dish}: {minutes} minutes, by {source}.",),
        ),
    ),
)

_MUSIC = _domain(
    "music",
    _tool(
        "play_song",
        "Play a song.",
        {"song": "song", "artist": "artist"},
        optional=("artist",),
        asks={"song": "Which song?"},
        train=(
            "Play {song}.",
            "Play the song {song}.",
            "I want to hear the song {song}.",
            "Play {song} by {artist}.",
            "Put on the song {song} by {artist}.",
            "Please play me the song {song}.",
        ),
        test=(
            "Can you play {song} for me?",
            "A song by {artist}, please: play {song}.",
            "Let me listen to the song called {song}.",
        ),
        bare=(("Play a song.", "I want to hear a song."), ("Can you play something for me?",)),
        result={"status": ("playing",)},
        replies=(("Now {status} {song}.", "{song} is on."), ("Here is the song {song}.",)),
    ),
    _tool(
        "create_playlist",
        "Make a new playlist.",
        {"name": "playlist", "genre": "genre"},
        optional=("genre",),
        asks={"name": "What is its name?"},
        train=(
            "Create a playlist called {name}.",
            "Make a new playlist named {name}.",
            "I want a new playlist with the name {name}.",
            "Make a {genre} playlist called {name}.",
            "Create the playlist {name} with {genre} music.",
            "Start a new playlist and name it {name}.",
        ),
        test=(
            "{name} should be the name of a new playlist.",
            "Could you make me a playlist of {genre} music, named {name}?",
            "Please set up a playlist, call it {name}.",
        ),
        bare=(("Create a new playlist.", "Make me a playlist."), ("I need a new playlist.",)),
        result={"status": ("created",)},
        replies=(("The playlist {name} is ready.", "I made the playlist {name}."), ("{name} is {status}.",)),
    ),
    _tool(
        "set_volume",
        "Set how loud the sound is.",
        {"level": "percent", "device": ("speaker", "phone", "tv")},
        optional=("device",),
        about={"level": "percent"},
        asks={"level": "To which level?"},
        train=(
            "Set the volume to {level}.",
            "Change the volume to {level} percent.",
            "Put the sound at {level} percent.",
            "Set the volume of the {device} to {level}.",
            "Turn the {device} sound to {level} percent.",
            "Make the sound level {level}.",
        ),
        test=(
            "I want the volume at {level} percent.",
            "The {device} should have a volume of {level}.",
            "Could the sound be set to {level}?",
        ),
        bare=(("Set the volume.", "Change the sound level."), ("I want another volume.",)),
        result={"status": ("set",)},
        replies=(("The volume is now {level}.", "Sound {status} to {level} percent."), ("Volume: {level}.",)),
    ),
    _tool(
        "find_concerts",
        "Find concerts of an artist.",
        {"artist": "artist", "city": "city"},
        optional=("city",),
        held_out=True,
        train=(
            "Find concerts of {artist}.",
            "When does {artist} give a concert?",
            "Show me the next concerts of {artist}.",
            "Find {artist} concerts in {city}.",
            "Does {artist} have a concert in {city}?",
            "I want to see {artist} live, find a concert.",
        ),
        test=(
            "Are there any concerts where {artist} plays?",
            "In {city}, which concerts does {artist} give?",
            "Look for a concert of the artist {artist}.",
        ),
        bare=(("Find me a concert.", "Which concerts are there?"), ("I want to go to a concert.",)),
        result={"place": "city", "date": "date"},
        replies=(
            ("{artist} plays in {place}, {date}.", "The next concert of {artist} is in {place}."),
            ("There is a concert in {place}: {date}.",),
        ),
    ),
)

_HOME = _domain(
    "home",
    _tool(
        "turn_on_light",
        "Turn on the light in a room.",
        {"room": "room", "brightness": "percent"},
        optional=("brightness",),
        about={"brightness": "percent"},
        train=(
            "Turn on the light in the {room}.",
            "Switch on the {room} light.",
            "Please turn the {room} lights on.",
            "Light on in the {room}, please.",
            "Turn on the {room} light at {brightness} percent.",
            "Switch the light in the {room} on, {brightness} percent bright.",
        ),
        test=(
            "It is dark in the {room}, turn the light on.",
            "I need some light on in the {room}.",
            "At {brightness} percent, can the light in the {room} be switched on?",
        ),
        bare=(("Turn on the light.", "Switch a light on, please."), ("It is dark, turn the light on.",)),
        result={"status": ("on",)},
        replies=(
            ("The {room} light is {status}.", "I turned on the light in the {room}."),
            ("Light {status}: {room}.",),
        ),
    ),
    _tool(
        "turn_off_light",
        "Turn off the light in a room.",
        {"room": "room"},
        train=(
            "Turn off the light in the {room}.",
            "Switch off the {room} light.",
            "Please turn the {room} lights off.",
            "Lights off in the {room}, please.",
            "I am leaving the {room}, turn off the light.",
            "Make the {room} dark, turn off the light.",
        ),
        test=(
            "The light in the {room} should be off.",
            "Can you switch the light off in the {room}?",
            "Nobody is in the {room}, so the light can go off.",
        ),
        bare=(("Turn off the light.", "Switch the light off, please."), ("The light should be off now.",)),
        result={"status": ("off",)},
        replies=(
            ("The {room} light is {status}.", "I turned off the light in the {room}."),
            ("It is dark in the {room}.",),
        ),
    ),
    _tool(
        "set_thermostat",
        "Set the temperature of the heating at home.",
        {"temperature": "degrees", "room": "room"},
        optional=("room",),
        about={"temperature": "degrees celsius"},
        asks={"temperature": "To how many degrees?"},
        train=(
            "Set the temperature to {temperature} degrees.",
            "Put the thermostat at {temperature}.",
            "Heat the house to {temperature} degrees.",
            "Set the {room} to {temperature} degrees.",
            "I want a temperature of {temperature} degrees in the {room}.",
            "Change the thermostat to {temperature} degrees.",
        ),
        test=(
            "Could the thermostat go to {temperature} degrees?",
            "The {room} needs a temperature of {temperature}, set it.",
            "At home I like {temperature} degrees, please set that.",
        ),
        bare=(("Set the thermostat.", "Change the temperature at home."), ("The thermostat needs a new temperature.",)),
        result={"status": ("set",)},
        replies=(
            ("The thermostat is {status} to {temperature}.", "It will be {temperature} degrees."),
            ("Temperature: {temperature} degrees.",),
        ),
    ),
    _tool(
        "lock_door",
        "Lock a door of the house.",
        {"door": ("front", "back", "garage", "garden")},
        asks={"door": "Which door?"},
        train=(
            "Lock the {door} door.",
            "Please lock the {door} door.",
            "Close and lock the {door} door.",
            "I am going out, lock the {door} door.",
            "Make sure the {door} door is locked.",
            "Lock my {door} door now.",
        ),
        test=(
            "The {door} door must be locked.",
            "Can you put the lock on the {door} door?",
            "Did I lock the {door} door? Do it for me.",
        ),
        bare=(("Lock the door.", "Please lock a door of the house."), ("The door must be locked.",)),
        result={"status": ("locked",)},
        replies=(("The {door} door is {status}.", "I locked the {door} door."), ("Done, {door} door {status}.",)),
    ),
    _tool(
        "open_blinds",
        "Open the window blinds in a room.",
        {"room": "room"},
        held_out=True,
        train=(
            "Open the blinds in the {room}.",
            "Please open the {room} blinds.",
            "Let the sun in, open the {room} blinds.",
            "Pull up the blinds in the {room}.",
            "Open the window blinds of the {room}.",
            "I want the {room} blinds open.",
        ),
        test=(
            "Can the blinds in the {room} be opened?",
            "The {room} window blinds should go up.",
            "Raise the blinds of the {room}, please.",
        ),
        bare=(("Open the blinds.", "Pull up the blinds, please."), ("Can the blinds be opened?",)),
        result={"status": ("open",)},
        replies=(
            ("The {room} blinds are {status}.", "I opened the blinds in the {room}."),
            ("Blinds {status}: {room}.",),
        ),
    ),
)

_FINANCE = _domain(
    "finance",
    _tool(
        "get_stock_price",
        "Get the price of one share of a stock.",
        {"symbol": "symbol"},
        asks={"symbol": "Which stock?"},
        train=(
            "What is the stock price of {symbol}?",
            "Get the price of the stock {symbol}.",
            "How much is {symbol} stock now?",
            "Check the {symbol} stock.",
            "Show me the price of {symbol} shares.",
            "Tell me what one {symbol} share costs.",
        ),
        test=(
            "I own {symbol} stock, what is the price today?",
            "At what price does the {symbol} stock stand?",
            "{symbol}: current stock price, please.",
        ),
        bare=(("What is the stock price?", "Check a stock for me."), ("Tell me the price of my stock.",)),
        result={"price": "total"},
        replies=(
            ("{symbol} is at {price}.", "One share of {symbol} costs {price}."),
            ("The price of {symbol} is {price}.",),
        ),
    ),
    _tool(
        "convert_currency",
        "Convert money from one currency to another.",
        {"amount": "amount", "source": "currency", "target": "currency"},
        asks={"source": "From which currency?", "target": "To which currency?"},
        train=(
            "Convert {amount} {source} to {target}.",
            "How much is {amount} {source} in {target}?",
            "Change {amount} {source} into {target}.",
            "I have {amount} {source}, convert the money to {target}.",
            "What are {amount} {source} worth in {target}?",
            "Convert the currency: {amount} {source} into {target}.",
        ),
        test=(
            "In {target}, how much money is {amount} {source}?",
            "I want {target} for my {amount} {source}, please convert.",
            "If I pay {amount} {source}, what is that in {target}?",
        ),
        bare=(
            ("Convert {amount} {source}.", "Change my {source} into {target}."),
            ("How much is {amount} {source} in other money?",),
        ),
        result={"value": "total"},
        replies=(
            ("{amount} {source} is {value} {target}.", "That is {value} {target}."),
            ("You get {value} {target}.",),
        ),
    ),
    _tool(
        "transfer_money",
        "Send money to a person.",
        {"person": "person", "amount": "amount", "note": "subject"},
        optional=("note",),
        train=(
            "Transfer {amount} to {person}.",
            "Send {amount} dollars to {person}.",
            "Pay money to {person}, {amount} in total.",
            "Transfer {amount} to {person} with the note '{note}'.",
            "Send {person} {amount}, note: {note}.",
            "I want to transfer {amount} dollars to {person}.",
        ),
        test=(
            "{person} should get {amount} from me, send the money.",
            "Could {amount} be transferred to {person}?",
            "With '{note}' as a note, send money to {person}: {amount}.",
        ),
        bare=(("Transfer money to {person}.", "Send {amount} dollars."), ("Can you send money to {person}?",)),
        result={"status": ("sent",)},
        replies=(("I sent {amount} to {person}.", "{amount} {status} to {person}."), ("{person} gets {amount}.",)),
    ),
    _tool(
        "get_balance",
        "Get the balance of a bank account.",
        {"account": ("savings", "checking", "business")},
        asks={"account": "Which account: savings, checking or business?"},
        train=(
            "What is the balance of my {account} account?",
            "How much money is in my {account} account?",
            "Show the {account} balance.",
            "Check my {account} account balance.",
            "Tell me the balance of the {account} account.",
            "Get the bank balance for {account}.",
        ),
        test=(
            "Do I have enough money in the {account} account?",
            "My {account} account, what is its balance?",
            "I want to know the {account} account balance.",
        ),
        bare=(("What is my balance?", "How much money is in my account?"), ("Check my bank account.",)),
        result={"balance": "total"},
        replies=(
            ("Your {account} balance is {balance}.", "There is {balance} in {account}."),
            ("The {account} account holds {balance}.",),
        ),
    ),
)

_SHOPPING = _domain(
    "shopping",
    _tool(
        "search_products",
        "Search the shop for a product to buy.",
        {"product": "product", "max_price": "price"},
        optional=("max_price",),
        train=(
            "Search the shop for a {product}.",
            "Find me a {product} in the shop.",
            "I am looking for a {product} to buy.",
            "Search for a {product} under {max_price}.",
            "Find a {product} in the shop for at most {max_price}.",
            "Does the shop sell a {product}?",
        ),
        test=(
            "I need a {product}, what does the shop have?",
            "For no more than {max_price}, is there a {product} in the shop?",
            "Look for any {product} I can buy.",
        ),
        bare=(("Search the shop.", "I want to buy something in the shop."), ("Look in the shop for me.",)),
        result={"shop": "shop", "price": "price"},
        replies=(
            ("{shop} has a {product} for {price}.", "I found a {product}: {price}."),
            ("A {product} costs {price}.",),
        ),
    ),
    _tool(
        "add_to_cart",
        "Put a product in the shopping cart.",
        {"product": "product", "quantity": "count"},
        optional=("quantity",),
        train=(
            "Add a {product} to my cart.",
            "Put the {product} in my shopping cart.",
            "Please add the {product} to the cart.",
            "Add {quantity} of the {product} to my cart.",
            "Put the {product} in the cart, {quantity} times.",
            "I take the {product}, add it to the cart.",
        ),
        test=(
            "The {product} should go into my cart.",
            "Can I have {quantity} in my cart of the {product}?",
            "My cart still needs a {product}.",
        ),
        bare=(("Add something to my cart.", "Put it in my shopping cart."), ("My cart still needs something.",)),
        result={"status": ("added",)},
        replies=(("The {product} is in your cart.", "I {status} the {product}."), ("Cart: {product}.",)),
    ),
    _tool(
        "show_cart",
        "Show what is in the shopping cart.",
        {},
        train=(
            "What is in my cart?",
            "Show my shopping cart.",
            "Show me what I have in the cart.",
            "Which products are in my cart?",
            "Let me see my cart.",
            "Read me the list in my shopping cart.",
        ),
        test=(
            "I want to see the things in my cart.",
            "Is there anything in the shopping cart?",
            "What have I put in my cart so far?",
        ),
        result={"item": "product", "price": "price"},
        replies=(("Your cart holds a {item} for {price}.", "There is a {item} in it."), ("One {item}, {price}.",)),
    ),
    _tool(
        "track_order",
        "Find out where an order is.",
        {"order": "order"},
        train=(
            "Where is my order {order}?",
            "Track order {order}.",
            "Find out where order {order} is.",
            "When will order {order} arrive?",
            "Track the package of order {order}.",
            "Has my order {order} been shipped?",
        ),
        test=(
            "I am still waiting for order {order}, where is it?",
            "Can you track what I ordered as {order}?",
            "{order}: where is that order now?",
        ),
        bare=(("Where is my order?", "Track my package."), ("I am still waiting for my order, where is it?",)),
        result={"place": "city", "arrival": "date"},
        replies=(
            ("Order {order} is in {place}.", "It is in {place}, arriving {arrival}."),
            ("{order} arrives {arrival}.",),
        ),
    ),
    _tool(
        "cancel_order",
        "Cancel an order in the shop.",
        {"order": "order"},
        train=(
            "Cancel order {order}.",
            "Please cancel my order {order}.",
            "I do not want order {order}, cancel it.",
            "Stop the order {order}.",
            "Cancel the shop order with number {order}.",
            "My order {order} was a mistake, cancel it.",
        ),
        test=(
            "Can order {order} still be cancelled?",
            "I changed my mind, order {order} should be cancelled.",
            "{order} is the order I want to cancel.",
        ),
        bare=(("Cancel my order.", "I want to cancel an order."), ("Can my order still be cancelled?",)),
        result={"status": ("cancelled",)},
        replies=(("Order {order} is {status}.", "I cancelled order {order}."), ("Your order {order} was {status}.",)),
    ),
    _tool(
        "return_item",
        "Return an order and get the money back.",
        {"order": "order", "reason": ("broken", "too small", "too big", "not needed")},
        optional=("reason",),
        held_out=True,
        train=(
            "Return order {order}.",
            "I want to return my order {order}.",
            "Please return {order} and get my money back.",
            "Return order {order}, it is {reason}.",
            "Order {order} is {reason}, I want to return it.",
            "Send order {order} back for the money.",
        ),
        test=(
            "How about returning order {order}? It is {reason}.",
            "I want my money back for order {order}.",
            "Order {order} should be returned.",
        ),
        bare=(("Return my order.", "I want my money back for an order."), ("An order should be returned.",)),
        result={"refund": "price"},
        replies=(
            ("You get {refund} back for {order}.", "The return of {order} is open."),
            ("{order}: {refund} back.",),
        ),
    ),
)

_LANGUAGE = _domain(
    "language",
    _tool(
        "translate_text",
        "Translate a text into another language.",
        {"text": "phrase", "language": "language"},
        asks={"text": "Which text?"},
        train=(
            "Translate '{text}' into {language}.",
            "How do you say '{text}' in {language}?",
            "Put '{text}' into {language}, please.",
            "Translate into {language}: {text}",
            "What is '{text}' in {language}?",
            "Give me the {language} translation of '{text}'.",
        ),
        test=(
            "In {language}, how would I say '{text}'?",
            "I need '{text}' translated to {language}.",
            "Could you translate this text to {language}: {text}",
        ),
        bare=(
            ("Translate '{text}'.", "Translate something into {language}."),
            ("I need '{text}' translated.",),
        ),
        result={"translation": "foreign"},
        replies=(
            ("In {language}: {translation}", "You say '{translation}'."),
            ("The {language} for it is '{translation}'.",),
        ),
    ),
    _tool(
        "define_word",
        "Get the meaning of a word.",
        {"word": "word"},
        train=(
            "What does the word {word} mean?",
            "Define {word}.",
            "Define the word '{word}'.",
            "What is the meaning of {word}?",
            "Give me the meaning of the word {word}.",
            "Look up what '{word}' means.",
        ),
        test=(
            "I do not know the word {word}, what is its meaning?",
            "{word}: how do you define that word?",
            "Can you tell me what is meant by '{word}'?",
        ),
        bare=(("Define a word for me.", "What does this word mean?"), ("I do not know a word, what is its meaning?",)),
        result={"meaning": "meaning"},
        replies=(("The word {word} means: {meaning}.", "It means {meaning}."), ("{word} stands for {meaning}.",)),
    ),
    _tool(
        "find_synonyms",
        "Find other words with the same meaning.",
        {"word": "word"},
        held_out=True,
        train=(
            "Find synonyms for {word}.",
            "What is another word for {word}?",
            "Give me other words for '{word}'.",
            "Which words have the same meaning as {word}?",
            "Show synonyms of the word {word}.",
            "I need a word with the same meaning as {word}.",
        ),
        test=(
            "Instead of {word}, which other words can I use?",
            "Are there synonyms of '{word}'?",
            "Say {word} in other words with the same meaning.",
        ),
        bare=(("Find me a synonym.", "I need another word."), ("Are there synonyms?",)),
        result={"synonym": "word"},
        replies=(
            ("Another word for {word} is {synonym}.", "You can say {synonym}."),
            ("Try {synonym} instead of {word}.",),
        ),
    ),
)

_MATHS = _domain(
    "maths",
    _tool(
        "calculate",
        "Calculate the result of a sum or other expression.",
        {"expression": "expression"},
        asks={"expression": "Which expression?"},
        train=(
            "What is {expression}?",
            "Calculate {expression}.",
            "How much is {expression}?",
            "Work out {expression}, please.",
            "Calculate the value of {expression}.",
            "Give me the result of {expression}.",
        ),
        test=(
            "I need to know {expression}, please calculate it.",
            "Can you compute {expression} for me?",
            "{expression} gives what value?",
        ),
        bare=(("Calculate something for me.", "I need you to calculate a value."), ("Can you compute it for me?",)),
        result={"value": "total"},
        replies=(("{expression} is {value}.", "The result is {value}."), ("That gives {value}.",)),
    ),
    _tool(
        "convert_length",
        "Convert a length from one unit to another.",
        {
            "value": "length",
            "source": ("metres", "feet", "miles", "inches"),
            "target": ("metres", "feet", "miles", "inches"),
        },
        asks={"value": "How long?", "source": "From which unit?", "target": "To which unit?"},
        train=(
            "Convert {value} {source} to {target}.",
            "How long is {value} {source} in {target}?",
            "Change {value} {source} into {target}.",
            "What is a length of {value} {source} in {target}?",
            "How many {target} are {value} {source}?",
            "Convert the length {value} {source} into {target}.",
        ),
        test=(
            "In {target}, how long is {value} {source}?",
            "I have {value} {source} and need the length in {target}.",
            "Write {value} {source} as {target}.",
        ),
        bare=(
            ("Convert {value} {source}.", "Convert {source} to {target}."),
            ("I have {value} {source} and need another unit.",),
        ),
        result={"length": "total"},
        replies=(
            ("{value} {source} is {length} {target}.", "That is {length} {target}."),
            ("It is {length} {target}.",),
        ),
    ),
    _tool(
        "pick_number",
        "Pick a random number between two numbers.",
        {"low": "low", "high": "high"},
        asks={"low": "From which number?", "high": "Up to which number?"},
        train=(
            "Pick a number between {low} and {high}.",
            "Give me a random number from {low} to {high}.",
            "Pick any number from {low} to {high}.",
            "Choose a random number between {low} and {high}.",
            "I need a random number between {low} and {high}.",
            "Random number, {low} to {high}, please.",
        ),
        test=(
            "Between {low} and {high}, which number do you pick?",
            "Could you choose some number from {low} up to {high}?",
            "Draw a random number, at least {low} and at most {high}.",
        ),
        bare=(
            ("Pick a random number up to {high}.", "Pick a random number from {low} up."),
            ("Draw a random number, at most {high}.",),
        ),
        result={"number": "count"},
        replies=(("I picked {number}.", "The number is {number}."), ("Your random number: {number}.",)),
    ),
)

_KNOWLEDGE = _domain(
    "knowledge",
    _tool(
        "web_search",
        "Search the web to find things online.",
        {"query": "query"},
        asks={"query": "What should I search for?"},
        train=(
            "Search the web for {query}.",
            "Look up {query} on the web.",
            "Find {query} online.",
            "Do a web search for '{query}'.",
            "Search online: {query}",
            "Please search for '{query}' on the internet.",
        ),
        test=(
            "What can you find on the web about '{query}'?",
            "I want to know {query}, search the internet.",
            "Run a web search, the words are '{query}'.",
        ),
        bare=(("Search the web.", "Look something up on the web."), ("Run a web search.",)),
        result={"found": "fact", "site": "shop"},
        replies=(("I found this: {found}.", "{site} says: {found}."), ("The web says: {found}.",)),
    ),
    _tool(
        "get_summary",
        "Get a short summary of a topic.",
        {"topic": "topic", "language": "language"},
        optional=("language",),
        train=(
            "Give me a summary of {topic}.",
            "Get a short summary about {topic}.",
            "Summarize the topic {topic}.",
            "Give me a summary of {topic} in {language}.",
            "I want a short {language} summary about {topic}.",
            "Show a short text about {topic}, a summary.",
        ),
        test=(
            "Could I have {topic} in a short summary?",
            "I know little about {topic}, is there a summary?",
            "In {language}, a summary about the topic {topic}, please.",
        ),
        bare=(("Give me a summary.", "I want a short summary."), ("Could I have a summary?",)),
        result={"summary": "fact"},
        replies=(("About {topic}: {summary}.", "Here it is: {summary}."), ("In short, on {topic}: {summary}.",)),
    ),
    _tool(
        "get_headlines",
        "Get the latest news headlines.",
        {"topic": "topic", "country": "country"},
        optional=("topic", "country"),
        train=(
            "What is in the news?",
            "Show me the latest headlines.",
            "Get the news about {topic}.",
            "Read me the headlines about {topic}.",
            "What are the latest news headlines in {country}?",
            "Give me the news from {country} about {topic}.",
        ),
        test=(
            "Is there any news on {topic}?",
            "I want to read the headlines of today.",
            "From {country}, what are the news headlines?",
        ),
        result={"headline": "headline", "source": "shop"},
        replies=(("The latest: {headline}.", "{source} writes: {headline}."), ("In the news: {headline}.",)),
    ),
)

_NOTES = _domain(
    "notes",
    _tool(
        "create_note",
        "Write a new note.",
        {"text": "note"},
        train=(
            "Make a note: {text}",
            "Write down that {text}.",
            "Create a note that says '{text}'.",
            "Note that {text}.",
            "Take a new note: {text}",
            "Please write a note saying {text}.",
        ),
        test=(
            "I want to keep a note, it says {text}.",
            "Could you note this for me: {text}",
            "Put '{text}' in a new note.",
        ),
        bare=(("Make a note.", "Write a new note."), ("I want to keep a note.",)),
        result={"status": ("saved",)},
        replies=(("The note is {status}.", "I wrote that {text}."), ("Note {status}: {text}.",)),
    ),
    _tool(
        "search_notes",
        "Search my notes for something.",
        {"topic": "topic"},
        train=(
            "Search my notes for {topic}.",
            "Find my notes about {topic}.",
            "What do my notes say about {topic}?",
            "Look in my notes for {topic}.",
            "Do I have a note about {topic}?",
            "Show the notes I made on {topic}.",
        ),
        test=(
            "I wrote something on {topic}, search the notes.",
            "Which of my notes are about {topic}?",
            "Is {topic} anywhere in my notes?",
        ),
        bare=(("Search my notes.", "Find one of my notes."), ("I wrote something, search the notes.",)),
        result={"note": "note"},
        replies=(("Your note says: {note}.", "I found a note: {note}."), ("On {topic} you wrote: {note}.",)),
    ),
    _tool(
        "share_file",
        "Share a file with an email address.",
        {"file": "file", "email": "email"},
        asks={"email": "With which email address?"},
        train=(
            "Share the file {file} with {email}.",
            "Give {email} access to the file {file}.",
            "Please share {file} with {email}.",
            "Let {email} see the file {file}.",
            "I want to share {file} with {email}.",
            "Share with {email} the file named {file}.",
        ),
        test=(
            "{email} needs the file {file}, please share it.",
            "Can {file} be shared with {email}?",
            "Make the file {file} open to {email}.",
        ),
        bare=(("Share the file {file}.", "Share a file with {email}."), ("Can {file} be shared?",)),
        result={"status": ("shared",)},
        replies=(("I shared {file} with {email}.", "{file} is {status}."), ("{email} can now see {file}.",)),
    ),
    _tool(
        "delete_file",
        "Delete a file.",
        {"file": "file"},
        train=(
            "Delete the file {file}.",
            "Please delete {file}.",
            "Remove the file {file} from my disk.",
            "I do not need {file}, delete it.",
            "Throw away the file {file}.",
            "Delete my old file {file}.",
        ),
        test=(
            "The file {file} can be deleted.",
            "Can you remove {file} from my files?",
            "Get rid of {file}, delete that file.",
        ),
        bare=(("Delete a file.", "Remove a file from my disk."), ("One of my files can be deleted.",)),
        result={"status": ("deleted",)},
        replies=(("The file {file} is {status}.", "I deleted {file}."), ("{file} is gone.",)),
    ),
)

_WORK = _domain(
    "work",
    _tool(
        "create_task",
        "Add a task to the to-do list.",
        {"task": "task", "due": "date"},
        optional=("due",),
        train=(
            "Add a task: {task}.",
            "Put '{task}' on my to-do list.",
            "Create a task to {task}.",
            "Add '{task}' to my tasks, due {due}.",
            "New task for my to-do list: {task}, due {due}.",
            "I have to {task}, add that to my to-do list.",
        ),
        test=(
            "My to-do list needs a new task: {task}.",
            "Can you add a task called '{task}' for me?",
            "Due {due}, I must {task}, make it a task.",
        ),
        bare=(("Add a task.", "Put something on my to-do list."), ("My to-do list needs a new task.",)),
        result={"status": ("added",)},
        replies=(("I added '{task}' to your list.", "New task: {task}."), ("On your list: {task}.",)),
    ),
    _tool(
        "complete_task",
        "Mark a task as done.",
        {"task": "task"},
        train=(
            "Mark the task '{task}' as done.",
            "The task '{task}' is done.",
            "Complete the task: {task}.",
            "I finished the task '{task}', mark it.",
            "Set the task '{task}' to done.",
            "Mark as done: {task}.",
        ),
        test=(
            "I am done with '{task}', please mark that task.",
            "Can the task '{task}' be marked as complete?",
            "'{task}' is a task I have done now.",
        ),
        bare=(("Mark a task as done.", "I finished a task."), ("I am done, please mark that task.",)),
        result={"status": ("done",)},
        replies=(("The task '{task}' is {status}.", "Well done: {task}."), ("I marked '{task}' as {status}.",)),
    ),
    _tool(
        "create_ticket",
        "Open a support ticket for a problem.",
        {"problem": "problem", "priority": ("low", "medium", "high")},
        optional=("priority",),
        asks={"problem": "What is the problem?"},
        train=(
            "Open a ticket: {problem}.",
            "Create a support ticket, the problem is: {problem}.",
            "I have a problem, open a ticket: {problem}.",
            "Open a {priority} priority ticket: {problem}.",
            "Create a ticket with {priority} priority: {problem}.",
            "Please report to support that the {problem}.",
        ),
        test=(
            "The {problem}, can you open a ticket?",
            "Support should know that the {problem}, make a ticket.",
            "There is a problem of {priority} priority for a ticket: {problem}.",
        ),
        bare=(("Open a support ticket.", "I have a problem, create a ticket."), ("Can you open a ticket?",)),
        result={"ticket": "ticket"},
        replies=(("I opened ticket {ticket}.", "Your ticket is {ticket}."), ("Support has it as {ticket}.",)),
    ),
    _tool(
        "assign_ticket",
        "Give a ticket to a person.",
        {"ticket": "ticket", "person": "person"},
        held_out=True,
        train=(
            "Assign ticket {ticket} to {person}.",
            "Give ticket {ticket} to {person}.",
            "Please assign {ticket} to {person}.",
            "Let {person} work on ticket {ticket}.",
            "The ticket {ticket} is for {person}.",
            "Hand the ticket {ticket} to {person}.",
        ),
        test=(
            "{person} should take the ticket {ticket}.",
            "Can you give {person} the ticket {ticket}?",
            "Ticket {ticket} goes to {person}.",
        ),
        bare=(("Assign ticket {ticket}.", "Give a ticket to {person}."), ("Who takes it? Assign ticket {ticket}.",)),
        result={"status": ("assigned",)},
        replies=(
            ("{person} now has ticket {ticket}.", "Ticket {ticket} is {status}."),
            ("I gave {ticket} to {person}.",),
        ),
    ),
)

_HEALTH = _domain(
    "health",
    _tool(
        "log_workout",
        "Save a workout with its length.",
        {"exercise": "exercise", "minutes": "minutes", "effort": ("light", "normal", "hard")},
        optional=("effort",),
        train=(
            "Log a workout: {minutes} minutes of {exercise}.",
            "I did {minutes} minutes of {exercise}, save the workout.",
            "Save my {exercise} workout of {minutes} minutes.",
            "Log {minutes} minutes of {effort} {exercise}.",
            "Save a {effort} workout: {exercise}, {minutes} minutes.",
            "Add {minutes} minutes of {exercise} to my workouts.",
        ),
        test=(
            "My workout was {exercise} for {minutes} minutes, please log it.",
            "Can you save {exercise} as a workout, {minutes} minutes?",
            "It was {effort}: {minutes} minutes of {exercise}. Log the workout.",
        ),
        bare=(
            ("Log my {exercise} workout.", "Log a workout of {minutes} minutes."),
            ("Can you save {exercise} as a workout?",),
        ),
        result={"calories": "total"},
        replies=(
            ("Saved: {minutes} minutes of {exercise}.", "You used {calories} calories."),
            ("{exercise}, {minutes} minutes: {calories} calories.",),
        ),
    ),
    _tool(
        "set_medicine_reminder",
        "Remind me to take a medicine.",
        {"medicine": "medicine", "time": "time"},
        asks={"medicine": "Which medicine?"},
        train=(
            "Remind me to take {medicine} at {time}.",
            "Set a medicine reminder for {medicine} at {time}.",
            "I take {medicine} at {time}, remind me.",
            "Set a reminder at {time} for my {medicine}.",
            "Please remind me of my {medicine} at {time}.",
            "At {time} I must take {medicine}, set a reminder.",
        ),
        test=(
            "My medicine is {medicine}, I want a reminder at {time}.",
            "Can I be reminded to take my {medicine}, at {time}?",
            "Do not let me forget the {medicine} at {time}, remind me.",
        ),
        bare=(
            ("Remind me to take {medicine}.", "Set a medicine reminder at {time}."),
            ("I want a reminder for my {medicine}.",),
        ),
        result={"status": ("set",)},
        replies=(
            ("I will remind you of {medicine} at {time}.", "The reminder is {status} for {time}."),
            ("{medicine} at {time}: {status}.",),
        ),
    ),
    _tool(
        "book_doctor",
        "Book a visit or an appointment at a doctor.",
        {"doctor": ("dentist", "eye doctor", "skin doctor", "family doctor"), "date": "date"},
        asks={"doctor": "Which doctor: dentist, eye doctor, skin doctor or family doctor?"},
        train=(
            "Book a visit to the {doctor} for {date}.",
            "I need to see the {doctor}, book it for {date}.",
            "Make an appointment with the {doctor} for {date}.",
            "Get me a visit at the {doctor} for {date}.",
            "Book the {doctor} for {date}, please.",
            "I want to visit the {doctor}, {date}, book it.",
        ),
        test=(
            "Is there an appointment at the {doctor} for {date}? Book it.",
            "For {date}, please plan a visit to my {doctor}.",
            "My health is bad, book the {doctor} for {date}.",
        ),
        bare=(
            ("Book a visit to the {doctor}.", "I need to see a doctor, book it for {date}."),
            ("Please plan a visit to my {doctor}.",),
        ),
        result={"time": "time"},
        replies=(("The {doctor} sees you at {time}.", "Booked for {date} at {time}."), ("{doctor}: {date}, {time}.",)),
    ),
)

_SPORTS = _domain(
    "sports",
    _tool(
        "get_score",
        "Get the score of a team in its last game.",
        {"team": "team"},
        train=(
            "What was the score of the {team} game?",
            "Did the {team} win their last game?",
            "Get the last score of the {team}.",
            "How did the {team} play, what was the score?",
            "Show me the {team} score.",
            "Tell me the score of the {team}.",
        ),
        test=(
            "I missed the game of the {team}, what was the score?",
            "Have the {team} won the last game?",
            "The {team} played, please give me the score.",
        ),
        bare=(("What was the score?", "Did my team win the last game?"), ("I missed the game, what was the score?",)),
        result={"score": "score"},
        replies=(("The {team} game ended {score}.", "The score was {score}."), ("Last game of the {team}: {score}.",)),
    ),
    _tool(
        "get_next_game",
        "Get when a team plays its next game.",
        {"team": "team"},
        train=(
            "When is the next {team} game?",
            "When do the {team} play next?",
            "Get the next game of the {team}.",
            "Show me when the {team} play again.",
            "Tell me the day of the next {team} game.",
            "When can I see the {team} play?",
        ),
        test=(
            "I am a fan of the {team}, when is their next game?",
            "The {team}: which day do they play next?",
            "What day will the next game of the {team} be?",
        ),
        bare=(("When is the next game?", "When does my team play next?"), ("Which day do they play next?",)),
        result={"date": "date", "opponent": "team"},
        replies=(("The {team} play {opponent}, {date}.", "The next game is {date}."), ("{date}, against {opponent}.",)),
    ),
)

_MAPS = _domain(
    "maps",
    _tool(
        "get_directions",
        "Get the way from one address to another.",
        {"origin": "address", "destination": "address", "mode": ("driving", "walking", "cycling")},
        optional=("mode",),
        train=(
            "How do I find the way from {origin} to {destination}?",
            "Give me directions from {origin} to {destination}.",
            "Show me the way from {origin} to {destination}.",
            "Get {mode} directions from {origin} to {destination}.",
            "What is the way from {origin} to {destination} when {mode}?",
            "I need directions from {origin} to {destination}, {mode}.",
        ),
        test=(
            "I am at {origin}, which way is {destination}?",
            "To reach {destination} from {origin}, what are the {mode} directions?",
            "Directions to {destination}, please, I start at {origin}.",
        ),
        bare=(
            ("Give me directions to {destination}.", "Show me the way from {origin}."),
            ("Which way is {destination}?",),
        ),
        result={"minutes": "minutes", "street": "address"},
        replies=(
            ("It takes {minutes} minutes, by {street}.", "Go by {street}, {minutes} minutes."),
            ("{destination} is {minutes} minutes away.",),
        ),
    ),
    _tool(
        "find_nearby",
        "Find a place close to an address.",
        {"place": ("pharmacy", "bank", "supermarket", "hospital", "post office"), "address": "address"},
        asks={"place": "What kind of place?"},
        train=(
            "Find a {place} near {address}.",
            "Where is the next {place} close to {address}?",
            "Is there a {place} near {address}?",
            "Show me a {place} close to {address}.",
            "I am at {address} and need a {place} nearby.",
            "Find the closest {place} to {address}.",
        ),
        test=(
            "Close to {address}, which {place} can you find?",
            "I look for a {place} that is near {address}.",
            "Which {place} is nearby when I am at {address}?",
        ),
        bare=(("Find a {place} nearby.", "Where is a {place} close by?"), ("I look for a {place} that is near.",)),
        result={"name": "shop", "metres": "total"},
        replies=(("The {place} {name} is {metres} metres away.", "There is {name}."), ("Near {address}: {name}.",)),
    ),
    _tool(
        "get_traffic",
        "Get the traffic on the roads of a city.",
        {"city": "city"},
        train=(
            "How is the traffic in {city}?",
            "Check the traffic in {city}.",
            "Is there much traffic in {city}?",
            "Show me the road traffic in {city}.",
            "Tell me about the traffic in {city} now.",
            "Are the roads of {city} full?",
        ),
        test=(
            "I drive to {city}, what about the traffic?",
            "{city}: is the traffic bad?",
            "How full are the roads in {city}?",
        ),
        bare=(("How is the traffic?", "Are the roads full?"), ("What about the traffic today?",)),
        result={"traffic": ("light", "normal", "heavy")},
        replies=(
            ("Traffic in {city} is {traffic}.", "There is {traffic} traffic."),
            ("{city} has {traffic} traffic.",),
        ),
    ),
)

_CLOCK = _domain(
    "clock",
    _tool(
        "set_alarm",
        "Set an alarm to wake up at a time.",
        {"time": "time", "date": "date"},
        optional=("date",),
        train=(
            "Set an alarm for {time}.",
            "Wake me up at {time}.",
            "I need an alarm at {time}.",
            "Set the alarm to {time} for {date}.",
            "Wake me at {time}, {date}.",
            "Please put the alarm at {time}.",
        ),
        test=(
            "The alarm should ring at {time}.",
            "Can you wake me with an alarm at {time}?",
            "For {date} I want the alarm at {time}.",
        ),
        bare=(("Set an alarm.", "Wake me up, please."), ("I want an alarm.",)),
        result={"status": ("set",)},
        replies=(("The alarm is {status} for {time}.", "I will wake you at {time}."), ("Alarm: {time}.",)),
    ),
    _tool(
        "start_timer",
        "Start a timer of some minutes.",
        {"minutes": "minutes"},
        train=(
            "Start a timer of {minutes} minutes.",
            "Set a timer for {minutes} minutes.",
            "I want a timer for {minutes} minutes.",
            "Timer for {minutes} minutes, please.",
            "Count down {minutes} minutes.",
            "Start the timer, {minutes} minutes.",
        ),
        test=(
            "I need {minutes} minutes on the timer.",
            "Can a timer run for {minutes} minutes?",
            "{minutes} minutes from now, let the timer ring.",
        ),
        bare=(("Start a timer.", "Set a timer for me."), ("I need a timer.",)),
        result={"status": ("running",)},
        replies=(("The timer is {status}.", "{minutes} minutes start now."), ("Timer {status}: {minutes} minutes.",)),
    ),
    _tool(
        "get_time",
        "Get the time of day in a city.",
        {"city": "city"},
        train=(
            "What time is it in {city}?",
            "Tell me the time in {city}.",
            "What is the local time in {city}?",
            "Get the time in {city} now.",
            "Show me what time it is in {city}.",
            "Which time do the clocks show in {city}?",
        ),
        test=(
            "I call someone in {city}, what time is it there?",
            "{city} time now, please.",
            "Do you know the time of day in {city}?",
        ),
        bare=(("What time is it there?", "Tell me the local time."), ("Do you know the time there?",)),
        result={"time": "time"},
        replies=(("It is {time} in {city}.", "The time in {city} is {time}."), ("{city}: {time}.",)),
    ),
)

_CINEMA = _domain(
    "cinema",
    _tool(
        "find_showtimes",
        "Find when a film is shown in a city.",
        {"film": "film", "city": "city"},
        train=(
            "When is {film} shown in {city}?",
            "Find showtimes for {film} in {city}.",
            "At what time can I see the film {film} in {city}?",
            "Show me when {film} runs in {city}.",
            "Is the film {film} shown in {city}?",
            "Find a cinema in {city} that shows {film}.",
        ),
        test=(
            "I am in {city}, when is the film {film} shown?",
            "Which showtimes does {film} have in {city}?",
            "The film {film} is on in {city}, find the times.",
        ),
        bare=(("When is {film} shown?", "Find showtimes in {city}."), ("When is the film {film} shown?",)),
        result={"cinema": "shop", "start": "time"},
        replies=(("{film} starts at {start} at {cinema}.", "It is shown at {start}."), ("See {film} at {start}.",)),
    ),
    _tool(
        "get_film_rating",
        "Get how good people find a film.",
        {"film": "film"},
        train=(
            "How good is the film {film}?",
            "What is the rating of {film}?",
            "Get the rating for the film {film}.",
            "Do people like the film {film}?",
            "Is {film} a good film?",
            "Tell me how people rate {film}.",
        ),
        test=(
            "Should I see {film}, what is its rating?",
            "What do people say about the film {film}, is it good?",
            "{film}: a good film or not?",
        ),
        bare=(("Is it a good film?", "What is the rating of the film?"), ("Do people find the film good?",)),
        result={"rating": "rating"},
        replies=(("People give {film} {rating} of 5.", "The rating is {rating}."), ("{film} is rated {rating}.",)),
    ),
    _tool(
        "buy_film_tickets",
        "Buy cinema tickets for a film.",
        {"film": "film", "count": "guests", "time": "time"},
        optional=("time",),
        about={"count": "number of tickets"},
        asks={"count": "How many tickets?"},
        train=(
            "Buy {count} tickets for {film}.",
            "Get me {count} cinema tickets for the film {film}.",
            "I want {count} tickets to see {film}.",
            "Buy {count} tickets for {film} at {time}.",
            "Get {count} tickets to the film {film} at {time}.",
            "Please buy cinema tickets for {film}, {count} of them.",
        ),
        test=(
            "We are {count} and want to buy tickets for {film}.",
            "For the film {film} at {time}, buy us {count} tickets.",
            "Can I have {count} tickets for {film}?",
        ),
        bare=(("Buy tickets for {film}.", "Buy {count} cinema tickets."), ("Can I have tickets for {film}?",)),
        result={"price": "price"},
        replies=(
            ("I bought {count} tickets for {price}.", "{count} tickets for {film}."),
            ("You pay {price} for {film}.",),
        ),
    ),
    held_out=True,
)

_LIBRARY = _domain(
    "library",
    _tool(
        "find_book",
        "Find out if the library has a book.",
        {"book": "book"},
        train=(
            "Does the library have {book}?",
            "Find the book {book} in the library.",
            "Is the book {book} in the library?",
            "Look for {book} in the library.",
            "Check if the library has the book {book}.",
            "Can I find {book} at the library?",
        ),
        test=(
            "I would like to read {book}, does the library have it?",
            "The book is called {book}, is it at the library?",
            "Find out whether {book} is in the library.",
        ),
        bare=(("Find a book in the library.", "Does the library have the book?"), ("Is the book at the library?",)),
        result={"shelf": "gate"},
        replies=(
            ("The library has {book}, shelf {shelf}.", "It is on shelf {shelf}."),
            ("{book} is on shelf {shelf}.",),
        ),
    ),
    _tool(
        "renew_book",
        "Keep a library book for longer.",
        {"book": "book", "weeks": "days"},
        optional=("weeks",),
        train=(
            "Renew the book {book}.",
            "I want to keep the library book {book} longer.",
            "Please renew {book}, I have not finished the book.",
            "Renew the library book {book} for {weeks} weeks.",
            "Keep the book {book} for {weeks} more weeks.",
            "Let me keep {book} from the library for longer.",
        ),
        test=(
            "The book {book} is due, can I keep it longer?",
            "For {weeks} more weeks I want to keep the book {book}.",
            "My library book {book} should be renewed.",
        ),
        bare=(("Renew my library book.", "I want to keep a book longer."), ("Can I keep the book longer?",)),
        result={"until": "date"},
        replies=(("You can keep {book} until {until}.", "{book} is yours until {until}."), ("Due {until}: {book}.",)),
    ),
    _tool(
        "reserve_book",
        "Reserve a book that someone else has.",
        {"book": "book"},
        train=(
            "Reserve the book {book}.",
            "Please reserve {book} for me.",
            "Someone else has {book}, reserve the book.",
            "I want to reserve the book {book}.",
            "Put me on the list for the book {book}, reserve it.",
            "Reserve {book}, I want to read that book next.",
        ),
        test=(
            "The book {book} is out, can you reserve it?",
            "Can I have the book {book} reserved?",
            "I want to be next for {book}, please reserve that book.",
        ),
        bare=(("Reserve a book for me.", "I want to reserve a book."), ("The book is out, can you reserve it?",)),
        result={"ready": "date"},
        replies=(("{book} is reserved, ready {ready}.", "You can get it {ready}."), ("I reserved {book} for you.",)),
    ),
    held_out=True,
)

_CAR = _domain(
    "car",
    _tool(
        "find_charger",
        "Find a charger for an electric car.",
        {"address": "address", "speed": ("fast", "slow")},
        optional=("speed",),
        asks={"address": "Near which address?"},
        train=(
            "Find a charger near {address}.",
            "Where can I charge my car near {address}?",
            "Find a car charger close to {address}.",
            "Find a {speed} charger near {address}.",
            "I need a {speed} car charger close to {address}.",
            "My electric car is empty, find a charger at {address}.",
        ),
        test=(
            "Close to {address}, where is a charger for my car?",
            "Is there a {speed} charger for electric cars by {address}?",
            "I want to charge the car, I am at {address}.",
        ),
        bare=(("Find a charger for my car.", "Where can I charge my car?"), ("I want to charge the car.",)),
        result={"place": "shop", "metres": "total"},
        replies=(
            ("There is a charger at {place}.", "{place}, {metres} metres away."),
            ("Charge your car at {place}.",),
        ),
    ),
    _tool(
        "pay_parking",
        "Pay for parking a car.",
        {"plate": "plate", "minutes": "minutes"},
        asks={"plate": "What is the licence plate?"},
        about={"plate": "licence plate"},
        train=(
            "Pay parking for {plate}, {minutes} minutes.",
            "Pay for {minutes} minutes of parking, plate {plate}.",
            "I parked the car {plate}, pay for {minutes} minutes.",
            "Please pay {minutes} minutes of parking for {plate}.",
            "Park my car {plate} for {minutes} minutes and pay.",
            "Pay the parking of car {plate} for {minutes} minutes.",
        ),
        test=(
            "The car {plate} stays {minutes} minutes, pay the parking.",
            "Can you pay for parking? {minutes} minutes, plate {plate}.",
            "For {plate} I need {minutes} minutes of paid parking.",
        ),
        bare=(
            ("Pay parking for {plate}.", "Pay for {minutes} minutes of parking."),
            ("Can you pay for parking the car {plate}?",),
        ),
        result={"price": "price"},
        replies=(
            ("I paid {price} for {minutes} minutes.", "Parking for {plate} costs {price}."),
            ("{plate} can stay {minutes} minutes.",),
        ),
    ),
    held_out=True,
)

CATALOGUE: tuple[WorldTool, ...] = (
    *_WEATHER,
    *_CALENDAR,
    *_MESSAGES,
    *_TRAVEL,
    *_FOOD,
    *_MUSIC,
    *_HOME,
    *_FINANCE,
    *_SHOPPING,
    *_LANGUAGE,
    *_MATHS,
    *_KNOWLEDGE,
    *_NOTES,
    *_WORK,
    *_HEALTH,
    *_SPORTS,
    *_MAPS,
    *_CLOCK,
    *_CINEMA,
    *_LIBRARY,
    *_CAR,
)
BY_NAME: dict[str, WorldTool] = {entry.tool.name: entry for entry in CATALOGUE}
