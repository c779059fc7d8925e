"""Examples that stand in the prompts of steps 3 and 4, in our own words."""

from __future__ import annotations

__all__ = ["CLASSIFIED", "INPUT_FIRST", "OUTPUT_FIRST"]

CLASSIFIED = (
    ("Decide whether the message below was written in anger.", True),
    ("Plan a day in the mountains for a family with a small child.", False),
    ("Is the given number prime, yes or no?", True),
    ("Name the language that a sentence is written in.", True),
    ("Rewrite the paragraph so that a ten-year-old understands it.", False),
    ("Say which of the three headlines fits the article best. Options: A, B, C.", True),
    ("Explain to a neighbour how to graft an apple tree.", False),
    ("Which of these words does not belong with the others? Answer with one of the words.", True),
    ("Write a poem about a lighthouse in winter.", False),
    ("Tell whether the review recommends the hotel or advises against it.", True),
    ("Convert the recipe from four people to seven.", False),
    ("Sort the news item into one of these sections: politics, sport, culture, economy.", True),
    ("Give three reasons why bread goes stale.", False),
    ("Find out whether the second sentence follows from the first one. Output true, false or unknown.", True),
    ("List the steps of changing a bicycle tyre.", False),
    ("Judge from the description whether the animal is a mammal, a bird, a reptile, an amphibian or a fish.", True),
    ("Answer the question with a date.", False),
    ("Is the tone of this e-mail formal or informal?", True),
    ("Translate the proverb into Portuguese.", False),
    ("Mark the comment as spam or not spam.", True),
    ("Come up with a name for a shop that sells second-hand instruments.", False),
    ("Decide which of two answers is the more polite one.", True),
    ("Continue the story with two sentences.", False),
    ("Does the customer want a refund? Answer yes or no.", True),
    ("Compute the area of the field from its sides.", False),
    ("Assign the product to a category: kitchen, garden, office or toys.", True),
    ("Write a polite letter to a landlord about a broken heater.", False),
    ("Pick the emotion that the speaker shows: joy, sadness, fear, anger or surprise.", True),
    ("Summarise the minutes of the meeting in one paragraph.", False),
    ("Estimate how urgent the request is: low, medium or high.", True),
    ("What would you ask a beekeeper whom you meet for the first time?", False),
)

INPUT_FIRST = (
    """\
Task: Sort the given list from the smallest to the largest.
Example 1
List: [10, 92, 2, 5, -4]
Output: [-4, 2, 5, 10, 92]
Example 2
List: [0.5, 0.05, 5]
Output: [0.05, 0.5, 5]""",
    """\
Task: Name two things that one can do with an old newspaper.
Output: One can wrap glasses in it before moving house, and one can clean windows with it.""",
    """\
Task: Shorten the message to what fits into one line.
Example 1
Message: I wanted to let you know that, because of the weather, the train will probably be about half an hour late.
Output: Train about 30 minutes late because of the weather.
Example 2
Message: Could you please remember to bring the blue folder with the invoices when you come over on Thursday?
Output: Please bring the blue invoice folder on Thursday.""",
    """\
Task: Convert a temperature from Celsius to Fahrenheit.
Example 1
Temperature: 20 °C
Output: 68 °F
Example 2
Temperature: -40 °C
Output: -40 °F""",
    """\
Task: Explain in two sentences why the sky is blue.
Output: Air scatters the short waves of sunlight more strongly than the long ones. Blue light therefore reaches us \
from every part of the sky, while red light comes straight from the sun.""",
    """\
Task: Write a question that the given sentence answers.
Example 1
Sentence: The bridge was opened in 1932.
Output: When was the bridge opened?
Example 2
Sentence: Bees find their way home by the position of the sun.
Output: How do bees find their way home?""",
    """\
Task: Correct the spelling of a sentence.
Example 1
Sentence: The libary is closd on mondays.
Output: The library is closed on Mondays.""",
    """\
Task: Suggest a dinner that can be cooked in twenty minutes.
Output: Spaghetti with garlic, chilli and olive oil: boil the pasta for nine minutes, warm the sliced garlic and the \
chilli in the oil, mix, and serve with parsley.""",
)

OUTPUT_FIRST = (
    """\
Task: Decide whether the review of a restaurant is positive or negative.
Class label: positive
Review: We waited only five minutes, and the soup alone was worth the trip.
Class label: negative
Review: Cold food, a loud room, and a bill with two mistakes in it.""",
    """\
Task: Find out whether a sentence is a question, a command or a statement.
Class label: question
Sentence: Has the post come yet?
Class label: command
Sentence: Put the ladder back into the shed.
Class label: statement
Sentence: The river rose by a metre overnight.""",
    """\
Task: Name the season that the diary entry was written in: spring, summer, autumn or winter.
Class label: autumn
Entry: The last grapes are in, and the mornings smell of wet leaves.
Class label: winter
Entry: We had to dig the car out of the snow before breakfast.""",
    """\
Task: Is the number even or odd?
Class label: even
Number: 178
Class label: odd
Number: 25""",
    """\
Task: Tell whether the two sentences contradict each other. Output yes or no.
Class label: yes
Sentence 1: The museum is closed on Mondays.
Sentence 2: We visited the museum last Monday, as on every Monday.
Class label: no
Sentence 1: The museum is closed on Mondays.
Sentence 2: The museum has a new director.""",
    """\
Task: Choose the department that a message should go to: billing, technical support or sales.
Class label: billing
Message: I was charged twice in March.
Class label: technical support
Message: The screen stays black after the update.
Class label: sales
Message: Do you offer a discount for schools?""",
)
