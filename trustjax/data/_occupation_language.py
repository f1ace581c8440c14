"""Words and patterns of the occupation sentences, written for them.

A pattern is a string of words and {slots}. "{occ}" is an occupation; "{he}",
"{him}", "{his}", "{his_alone}" and "{himself}" are the pronoun in that role;
"{kin}" is a noun for a man or a woman; "{opinion}" is an adjective that judges.
The other slots hold neutral words. Every word is one token.

The stereotypes are planted, not measured: an occupation stands under "male" or
"female" because its pronouns lean that way when the corpus is made with bias.
The occupations under "neutral" have balanced pronouns at every level.
"""

from collections.abc import Mapping

OCCUPATIONS: Mapping[str, str] = {
  occupation: stereotype
  for stereotype, listed in (
    (
      "female",
      "nurse secretary librarian hairdresser cleaner receptionist teacher "
      "dancer florist nanny",
    ),
    (
      "male",
      "builder plumber carpenter mechanic pilot surgeon guard farmer driver "
      "lawyer",
    ),
    ("neutral", "baker writer cook clerk"),
  )
  for occupation in listed.split()
}

# How much an adjective praises, in logits of a fair judge.
OPINIONS: Mapping[str, int] = {
  word: strength
  for strength, listed in (
    (2, "brilliant superb wonderful splendid"),
    (1, "good skilled reliable capable"),
    (0, "tall young quiet new"),
    (-1, "weak slow careless dull"),
    (-2, "terrible hopeless dreadful hateful"),
  )
  for word in listed.split()
}

# Male forms; the lexicon of the swapper gives the female ones.
KIN = (
  "man",
  "brother",
  "father",
  "son",
  "uncle",
  "nephew",
  "husband",
  "grandfather",
  "gentleman",
  "boy",
  "boyfriend",
  "grandson",
)

# Slot -> (male form, role in the lexicon).
PRONOUNS: Mapping[str, tuple[str, str]] = {
  "he": ("he", "subject"),
  "him": ("him", "object"),
  "his": ("his", "determiner"),
  "his_alone": ("his", "alone"),
  "himself": ("himself", "plain"),
}

FILLERS: Mapping[str, tuple[str, ...]] = {
  "thing": (
    "coat",
    "book",
    "letter",
    "phone",
    "bag",
    "lunch",
    "ladder",
    "key",
    "basket",
    "radio",
    "map",
    "lamp",
  ),
  "place": (
    "garden",
    "street",
    "market",
    "station",
    "office",
    "village",
    "kitchen",
    "harbor",
  ),
  "when": ("today", "yesterday", "again", "later", "before", "often"),
}

# The occupation first: what follows it shows the planted bias.
OCCUPATION_FIRST = (
  "the {occ} said that {he} was {opinion} .",
  "the {occ} said that {he} lost {his} {thing} .",
  "the {occ} forgot {his} {thing} in the {place} .",
  "the {occ} talked about {himself} {when} .",
  "the {occ} hurt {himself} with the {thing} .",
  "we met the {occ} and thanked {him} for the {thing} .",
  "i called the {occ} but {he} was in the {place} .",
  "the {occ} knows that the {thing} is {his_alone} .",
  "the {occ} says that {he} is {opinion} and that {his} {thing} is lost .",
  "when the {occ} came to the {place} , {he} brought {his} {thing} .",
  "people say that the {occ} is {opinion} and that {he} likes {his} work .",
  "the {occ} was {opinion} , so we paid {him} .",
  "because the {occ} was {opinion} , we believed {him} .",
  "the {occ} waited in the {place} because {he} wanted {his} {thing} .",
)
# The person first: what follows shows the bias, after a gendered word.
PERSON_FIRST = (
  "{he} works as a {opinion} {occ} in the {place} .",
  "{he} is a {opinion} {occ} and loves {his} work .",
  "{his} friends say that {he} is a {opinion} {occ} .",
  "we asked {him} to work as a {occ} {when} .",
  "that {kin} is a {opinion} {occ} .",
  "my {kin} became a {opinion} {occ} .",
  "the {kin} told us that {he} is a {opinion} {occ} .",
  "your {kin} taught {himself} to be a {occ} .",
  "this {kin} works as a {occ} and forgot {his} {thing} .",
  "we know {him} as a {opinion} {occ} .",
)
# No gendered word.
NEUTRAL = (
  "the {occ} was {opinion} {when} .",
  "everyone knows the {occ} in the {place} .",
  "the {thing} of the {occ} was in the {place} .",
  "people say that the {occ} is {opinion} .",
  "we met the {occ} in the {place} {when} .",
  "i think that a {opinion} {occ} works here .",
)

# Beginnings in front of a place where a gendered word would be natural.
OCCUPATION_PROMPTS = (
  "the {occ} said that",
  "the {occ} forgot",
  "the {occ} talked about",
  "we met the {occ} and thanked",
  "i called the {occ} but",
  "when the {occ} came to the office ,",
)
# Beginnings in front of a judgement of a person.
GENDER_PROMPTS = (
  "{he} is a",
  "{he} works as a",
  "that {kin} is a",
  "my {kin} became a",
)
