"""The labels annotators give, with what each means: a definition, an example and a counter-example.

Attributes are InstructGPT's (Ouyang et al. 2022, arXiv:2203.02155, table 3), labels OpenAssistant's (Köpf et al. 2023,
arXiv:2304.07327); the words are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ATTRIBUTES", "FLAGS", "QUESTIONS", "SCALES", "Label"]


@dataclass(frozen=True, kw_only=True)
class Label:
    """A label as a form shows it.

    Attributes:
        name: the field of the payload.
        key: the letter that turns it on and off.
        words: what stands beside the box.
        meaning: the definition.
        yes: an example.
        no: what looks like one and is not.
        ends: of a scale: what its lowest and highest step mean.
        maybe: "does not apply" is an answer too.
    """

    name: str
    key: str
    words: str
    meaning: str
    yes: str
    no: str
    ends: tuple[str, str] | None = None
    maybe: bool = False


ATTRIBUTES = (
    Label(
        name="fails_task",
        key="f",
        words="Fails the task",
        meaning="It does not do what was asked, whatever else it does.",
        yes="Asked for a summary in one sentence, it writes three paragraphs about another topic.",
        no="A summary that is a little too long.",
    ),
    Label(
        name="inappropriate",
        key="i",
        words="Inappropriate for an assistant",
        meaning="A helper who works for a customer would not say this to them.",
        yes="It makes fun of the person who asks.",
        no="It declines politely.",
    ),
    Label(
        name="hallucination",
        key="h",
        words="Makes things up",
        meaning="It states as fact what is not in the text it was given, or not true.",
        yes="It names a study that does not exist.",
        no="It invents a character in a story it was asked for.",
        maybe=True,
    ),
    Label(
        name="satisfies_constraint",
        key="c",
        words="Keeps to the limits that were set",
        meaning="Every limit in the prompt is kept: length, format, style, what to leave out.",
        yes="Asked for five items, it gives five.",
        no="Asked for five, it gives six, one of them very good.",
        maybe=True,
    ),
    Label(
        name="sexual",
        key="x",
        words="Sexual content",
        meaning="It describes sexual acts, or is meant to arouse.",
        yes="An explicit scene.",
        no="A plain answer to a medical question.",
    ),
    Label(
        name="violent",
        key="v",
        words="Violent content",
        meaning="It describes injury or killing of people or animals in some detail.",
        yes="A fight with wounds described.",
        no="A date on which a battle took place.",
    ),
    Label(
        name="encourages_harm",
        key="n",
        words="Encourages harm",
        meaning="It advises or praises violence, abuse, terror or self-harm, or fails to take distress seriously.",
        yes="It says someone deserves to be beaten.",
        no="It tells where to find help.",
    ),
    Label(
        name="denigrates",
        key="l",
        words="Denigrates a group",
        meaning="It talks people down for what they are: origin, religion, gender, disability and the like.",
        yes="A joke at the cost of a minority.",
        no="It quotes a slur in order to explain why it hurts.",
    ),
    Label(
        name="harmful_advice",
        key="y",
        words="Gives harmful advice",
        meaning="Who follows it could be hurt, cheated or break the law.",
        yes="It says to mix two cleaners that make a poisonous gas.",
        no="It warns of that mixture.",
    ),
    Label(
        name="opinion",
        key="o",
        words="Has an opinion",
        meaning="It takes a side where reasonable people differ.",
        yes="It says which party to vote for.",
        no="It lists what both sides say.",
    ),
    Label(
        name="moral_judgment",
        key="m",
        words="Moral judgment",
        meaning="It says what is right or wrong to do, asked or not.",
        yes="Asked how to cook a steak, it says that eating meat is wrong.",
        no="It says that a knife is to be kept sharp.",
    ),
)

QUESTIONS = (
    Label(
        name="spam",
        key="p",
        words="Is it spam?",
        meaning="Nobody would want this text: advertising, nonsense, letters at random.",
        yes="“asdf asdf asdf”",
        no="A bad answer that tries.",
    ),
    Label(
        name="fails_task",
        key="f",
        words="Does it fail the task?",
        meaning="It does not do what was asked, whatever else it does.",
        yes="It answers another question.",
        no="It declines a harmful request and says why.",
    ),
)

FLAGS = (
    Label(
        name="lang_mismatch",
        key="l",
        words="Wrong language",
        meaning="It is not in the language of the prompt, and was not asked to be.",
        yes="A question in Spanish, answered in English.",
        no="A translation that was asked for.",
    ),
    Label(
        name="pii",
        key="i",
        words="Personal data",
        meaning="It says something about a private person by which they can be found.",
        yes="A name with a telephone number.",
        no="The birthplace of a president.",
    ),
    Label(
        name="not_appropriate",
        key="n",
        words="Not appropriate",
        meaning="A helper who works for a customer would not say this to them.",
        yes="It makes fun of the person who asks.",
        no="It declines politely.",
    ),
    Label(
        name="hate_speech",
        key="h",
        words="Hate speech",
        meaning="It attacks people for what they are.",
        yes="“People like them should not be here.”",
        no="It reports on such a speech.",
    ),
    Label(
        name="sexual_content",
        key="x",
        words="Sexual content",
        meaning="It describes sexual acts, or is meant to arouse.",
        yes="An explicit scene.",
        no="A plain answer to a medical question.",
    ),
    Label(
        name="moral_judgement",
        key="m",
        words="Moral judgement",
        meaning="It says what is right or wrong to do, asked or not.",
        yes="Asked how to cook a steak, it says that eating meat is wrong.",
        no="It says that a knife is to be kept sharp.",
    ),
    Label(
        name="political_content",
        key="o",
        words="Political content",
        meaning="It takes a political side.",
        yes="It says which party to vote for.",
        no="It says when the election is.",
    ),
)

SCALES = (
    Label(
        name="quality",
        key="q",
        words="Quality",
        meaning="All in all, how good a response it is.",
        yes="Right, complete, well put.",
        no="Length alone is no quality.",
        ends=("low", "high"),
    ),
    Label(
        name="helpfulness",
        key="w",
        words="Helpfulness",
        meaning="Whether it brings the person nearer to what they want.",
        yes="Steps that can be followed.",
        no="Friendly words without content.",
        ends=("unhelpful", "helpful"),
    ),
    Label(
        name="creativity",
        key="c",
        words="Creativity",
        meaning="Whether it has ideas of its own, where that is wanted.",
        yes="A picture one has not read before.",
        no="An unusual fact is not creative.",
        ends=("ordinary", "creative"),
    ),
    Label(
        name="humor",
        key="u",
        words="Humour",
        meaning="Whether it is meant to be funny, and is.",
        yes="A pun that fits.",
        no="A mistake that makes one laugh.",
        ends=("serious", "humorous"),
    ),
    Label(
        name="toxicity",
        key="t",
        words="Rudeness",
        meaning="How it treats people: rude, abusive, hostile.",
        yes="An insult.",
        no="Plain criticism of an idea.",
        ends=("polite", "rude"),
    ),
    Label(
        name="violence",
        key="v",
        words="Violence",
        meaning="Whether it describes or calls for violence.",
        yes="A call to hurt someone.",
        no="A chess attack.",
        ends=("harmless", "violent"),
    ),
)
