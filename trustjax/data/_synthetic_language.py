"""Words and sentence patterns of the synthetic corpus, written for it.

A pattern is a string of words and {slots}; "{time}" stands for a value of the
slot type "time", tagged B-time I-time ... . Closed slot types list their
values. Open ones (names of people, places, works) are assembled from parts,
so that the tail of rare names is long and evaluation data holds names that
training data does not. Songs, albums and films are drawn from one pool of
titles, and people from the pool that artists are built of: only the sentence
around a name tells which slot it fills.
"""


def _words(text: str) -> tuple[str, ...]:
  return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
  return tuple(text.split("|"))


# Parts of assembled names.
FIRST_NAMES = _words(
  """
  ada alvo anouk ben bettina bram carla cleo dario dina edda emil enzo fay
  finn flora gil greta hana hugo ida igor ines ivo jana joris jules kaya kim
  lars lena levi lina lou luca mara marek mila milo nadia nell nico nora olga
  omar orla otis paula pia quinn rafi rhea rosa ruben sami selma silas tara
  theo tilda uma vera viktor wanda wim xenia yara yusuf zara zeno
  """
)
FAMILY_NAMES = _words(
  """
  abernoth alder barrowe bellamine birk calder castane corvin dahlby drayton
  eastmoor elkin farrow fenwright gallowen grent hadley harrowgate hollin
  ibsley jarrow kestrel kirkby lanwick larkin marlow merrin nettlefold
  norring oakes orwin penhale pryor quill ravell rookwood sandgren selwyn
  thorne tolliver underhay vance verrin wexley whitlock yarrow zeller
  """
)
PLACE_STEMS = _words(
  """
  alder amber ash birch black briar brook clear clay cold copper crow deer
  east elm fair fern fox glen gold gray green hazel heath holly iron juniper
  king lake lark long maple mill moss north oak old otter pine raven red
  river rook salt silver south stone swan thorn west white willow winter
  """
)
PLACE_ENDINGS = _words(
  "bridge bury field ford gate ham haven holm mouth port stead ton vale "
  "wick wood worth"
)
TITLE_FIRST = _words(
  """
  blue broken burning crooked distant electric empty endless fading falling
  forgotten frozen gentle golden hidden hollow hungry last lonely lost lucky
  midnight million paper quiet restless rising running second secret seven
  silent silver sleepless slow stolen strange sudden summer thousand velvet
  wandering wild winter yellow
  """
)
TITLE_SECOND = _words(
  """
  angels bridges candles cities clouds coast dancers dreams engines fires
  flowers garden ghosts harbor hearts highway horizon island kingdom lanterns
  letters lights machine maps mirrors moons morning mountain ocean orchard
  promises rain road rooms shadows ships sky stars stories strangers streets
  thunder tides train waltz water weather windows wolves
  """
)
VENUE_FIRST = _words(
  """
  bitter brass broken corner crooked dancing five garden golden happy hungry
  lazy little lucky noble old olive painted quiet red rusty seven smoky
  sunny twisted velvet
  """
)
VENUE_SECOND = _words(
  """
  anchor apron barrel bistro cellar fig fork goat hearth kettle kitchen ladle
  lantern lemon mill oven pear pepper plate sparrow spoon stove table thistle
  tomato whisk
  """
)

# Closed slot types.
CLOSED_VALUES: dict[str, tuple[str, ...]] = {
  "genre": _phrases(
    "jazz|classical|folk|techno|blues|hip hop|indie rock|soul|reggae|metal|"
    "disco|country|ambient|swing|synth pop|gospel"
  ),
  "service": _phrases("tunebox|wavecast|harmonia|streamly|the radio|earworm"),
  "date": _phrases(
    "today|tomorrow|tonight|monday|tuesday|wednesday|thursday|friday|saturday|"
    "sunday|next monday|next friday|this weekend|next week|the day after "
    "tomorrow|in two days|on the third|march second|june fifth|christmas eve|"
    "new year|this evening"
  ),
  "time": _phrases(
    "noon|midnight|six am|seven am|seven thirty|eight o'clock|half past nine|"
    "ten in the morning|eleven fifteen|one pm|two thirty|quarter to four|"
    "five pm|six in the evening|seven pm|eight forty five|nine at night|"
    "ten pm|in an hour|in ten minutes|in half an hour|lunch time"
  ),
  "condition": _phrases(
    "rain|snow|sunshine|fog|wind|a storm|thunder|frost|hail|clouds|"
    "freezing cold|heat"
  ),
  "cuisine": _phrases(
    "italian|thai|mexican|indian|greek|vegan|japanese|korean|lebanese|"
    "ethiopian|french|seafood|turkish|peruvian"
  ),
  "party_size": _phrases(
    "two|three|four|five|six|seven|eight|ten|a dozen|me and a friend|"
    "my family|both of us"
  ),
  "item": _phrases(
    "milk|eggs|bread|apples|butter|rice|onions|olive oil|dish soap|batteries|"
    "coffee beans|tomatoes|cat food|light bulbs|paper towels|green tea|"
    "a birthday card|stamps|yogurt|sun cream|flour|two lemons|toothpaste|"
    "oat milk|candles"
  ),
  "list_name": _phrases(
    "shopping|grocery|weekend|to do|packing|hardware store|party|wish|"
    "kitchen|holiday"
  ),
  "device": _phrases(
    "lights|lamp|heating|fan|television|blinds|oven|speaker|coffee machine|"
    "dishwasher|humidifier|floor lamp|radio|vacuum"
  ),
  "room": _phrases(
    "kitchen|living room|bedroom|hall|bathroom|garage|office|nursery|attic|"
    "guest room|cellar"
  ),
  "setting": _phrases(
    "ten percent|half|full power|low|medium|high|twenty degrees|eco mode|"
    "the maximum|the minimum|warm|night mode"
  ),
  "transport": _phrases("bus|train|bike|car|tram|taxi|ferry|subway"),
  "task": _phrases(
    "water the plants|call the dentist|pay the rent|feed the cat|take out "
    "the trash|renew my passport|pick up the parcel|stretch|buy train "
    "tickets|take my pills|return the library books|back up my laptop|"
    "check the oven|send the invoice|walk the dog"
  ),
  "message": _phrases(
    "i am running late|see you soon|happy birthday|call me back|the meeting "
    "moved|dinner is ready|i miss you|thanks for the help|we are on our way|"
    "please bring the keys|the train is late|good luck today|i left the "
    "lights on|are you home"
  ),
}

# Intent -> (domain, patterns). The patterns of different intents share verbs
# on purpose: "put", "set", "play", "find" and "show" decide nothing alone.
PATTERNS: dict[str, tuple[str, tuple[str, ...]]] = {
  "play_music": (
    "media",
    (
      "play {song}",
      "play {song} by {artist}",
      "play some {genre}",
      "put on {song} by {artist}",
      "put {artist} on",
      "i want to hear {artist}",
      "i want to hear some {genre} on {service}",
      "play the album {album}",
      "play {album} by {artist} on {service}",
      "start {song} in the {room}",
      "find {genre} on {service} and play it",
      "listen to {artist} on {service}",
      "let me hear {song}",
      "something {genre} for {time}",
      "{song}",
      "{genre} please",
    ),
  ),
  "find_film": (
    "media",
    (
      "find {film}",
      "when is {film} on {date}",
      "when does {film} start",
      "show times for {film} in {city}",
      "is {film} playing {date}",
      "what is playing in {city} {date}",
      "i want to see {film} at {time}",
      "find a film for {date} at {time}",
      "where can i watch {film} near {venue}",
      "show me {film}",
      "find the film {film} on {service}",
      "{film} {date}",
      "{film}",
    ),
  ),
  "get_weather": (
    "weather",
    (
      "what is the weather in {city}",
      "what will it be like in {city} {date}",
      "will there be {condition} {date}",
      "is there {condition} in {city}",
      "do i need an umbrella {date}",
      "show the forecast for {city}",
      "forecast for {date}",
      "how cold is it in {city} at {time}",
      "will {condition} reach {city} by {date}",
      "is {date} a good day for the beach in {city}",
      "tell me if it starts to {condition} at {time}",
      "{city} {date}",
      "how is {city}",
    ),
  ),
  "book_table": (
    "food",
    (
      "book a table at {venue}",
      "book a table for {party_size} at {venue} {date}",
      "reserve {venue} for {party_size} at {time}",
      "find a {cuisine} place for {party_size}",
      "i want {cuisine} food in {city} {date}",
      "get us into {venue} at {time}",
      "table for {party_size} {date}",
      "set up dinner for {party_size} at {venue}",
      "is there a {cuisine} place in {city} with space for {party_size}",
      "put {person} and me down for {venue} at {time}",
      "{venue} {date} at {time}",
      "{venue} with {person}",
    ),
  ),
  "add_to_list": (
    "home",
    (
      "put {item} on my {list_name} list",
      "add {item} to the {list_name} list",
      "add {item}",
      "we need {item}",
      "put {item} and {item} on the list",
      "i am out of {item}",
      "add {item} and {item} to {list_name}",
      "write down {item} for {date}",
      "{person} wants {item} on the {list_name} list",
      "remember {item} for the {list_name} list",
      "{item} and {item}",
    ),
  ),
  "set_reminder": (
    "planning",
    (
      "remind me to {task}",
      "remind me to {task} {date}",
      "remind me at {time} to {task}",
      "remind {person} to {task} {date}",
      "set a reminder to {task} at {time}",
      "i must not forget to {task}",
      "tell {person} to {task} at {time}",
      "put {task} on my plan for {date}",
      "add a reminder for {date} to {task}",
      "{task} {date} at {time}",
    ),
  ),
  "set_alarm": (
    "planning",
    (
      "wake me at {time}",
      "set an alarm for {time}",
      "set an alarm for {time} {date}",
      "alarm {date} at {time}",
      "wake me up {date} with {song}",
      "i need to be up by {time}",
      "add an alarm for {time} in the {room}",
      "start a timer {time}",
      "wake {person} at {time} {date}",
      "{date} at {time}",
    ),
  ),
  "send_message": (
    "contact",
    (
      "tell {person} {message}",
      "send {person} a message saying {message}",
      "text {person} {message}",
      "let {person} know {message}",
      "message {person} that {message}",
      "write to {person} {message}",
      "send {message} to {person} at {time}",
      "say {message} to {person}",
      "tell {person} i want to hear {artist}",
      "tell {person} that {city} is lovely {date}",
      "tell {person} we are in {venue} at {time}",
      "tell {person} to put {item} on the list",
    ),
  ),
  "navigate": (
    "travel",
    (
      "take me to {venue}",
      "how do i get to {city}",
      "how do i get to {venue} by {transport}",
      "when is the next {transport} to {city}",
      "find the way to {city} by {transport}",
      "is there a {transport} to {city} at {time}",
      "show me the road to {city}",
      "get me to {city} by {time}",
      "how long is the {transport} ride to {venue}",
      "book a {transport} to {city} for {date}",
      "{venue} by {transport}",
      "{city} {date} at {time}",
    ),
  ),
  "control_device": (
    "home",
    (
      "turn on the {device}",
      "turn off the {device} in the {room}",
      "set the {room} {device} to {setting}",
      "put the {device} on {setting}",
      "switch the {device} off at {time}",
      "start the {device} {date} at {time}",
      "is the {device} on in the {room}",
      "turn the {device} up",
      "make the {room} {device} {setting}",
      "put the {room} {device} on",
      "{device} {setting}",
    ),
  ),
}

# What a speaker may put around a request, none of it tagged.
OPENERS = _phrases(
  "please|hey|can you|could you|would you please|ok|i would like you to|"
  "quickly|now|so|um|hello there"
)
CLOSERS = _phrases("please|thanks|now|right away|if you can|ok|for me")

# What a speaker says after a false start: the request before it is void.
CORRECTIONS = _phrases("no wait|sorry i mean|no|or rather|forget it|i mean")

# Patterns of a singleton: a word found nowhere else, whose intent is drawn at
# random. Nothing but the record itself tells the intent.
SINGLETON_PATTERNS = (
  "run {code}",
  "do the {code} thing",
  "start routine {code} {number}",
  "my code is {code} {number}",
  "{code} {number} {number}",
  "ask for {code} at desk {number}",
)
NUMBERS = _words("zero one two three four five six seven eight nine")
SYLLABLES = _words(
  "ba dro fen gli hux jor kva lim mox nep orv plu qua rit sko tro ulf vex "
  "wyn zar ix esk om ard"
)
