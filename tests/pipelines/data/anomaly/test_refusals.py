# ruff: noqa: RUF001
import pytest

from pipelines.data.anomaly.refusals import declines

REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I cannot provide that information.",
    "I cannot assist with this request.",
    "I am unable to fulfill that.",
    "As an AI language model, I do not have opinions.",
    "Unfortunately, I am not able to browse the internet.",
    "I apologize for the confusion, but I cannot answer this.",
    "Thank you for asking. I must respectfully decline to answer.",
    "Sorry, but I won't do that.",
    "Es tut mir leid, aber dabei kann ich Ihnen nicht helfen.",
    "Leider kann ich diese Frage nicht beantworten.",
    "Als KI-Sprachmodell habe ich keine Meinung.",
    "Je suis désolé, mais je ne peux pas vous aider.",
    "En tant qu'intelligence artificielle, je n'ai pas d'avis.",
    "Lo siento, pero no puedo ayudar con eso.",
    "Sinto muito, mas não posso ajudar com isso.",
    "Mi dispiace, ma non posso aiutarti.",
    "Het spijt me, maar ik kan daar niet bij helpen.",
    "К сожалению, я не могу помочь с этим.",
    "抱歉，我无法回答这个问题。",
    "申し訳ありませんが、お答えできません。",
]
ANSWERS = [
    "Return True if the file cannot be opened.",
    "You can't provide both arguments at once.",
    "I'm sorry to hear that! Restart the router and wait for two minutes.",
    "Sorry for the delay: the parcel arrives tomorrow.",
    "As an aid to memory, write it down.",
    "I can help you with that. Which number do you have?",
    "The server declines to answer when it is busy.",
    "Als Kind wohnte sie in Bonn.",
    "Es tut mir leid, dass Sie warten mussten. Das Paket kommt morgen.",
    "No puedo más, pensó el viajero, y se sentó.",
    "",
]


@pytest.mark.parametrize("answer", REFUSALS)
def test_an_answer_that_declines_is_known(answer):
    assert declines([answer]).to_pylist() == [True]
    assert declines([answer.upper()]).to_pylist() == [True]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_says_something_is_none(answer):
    assert declines([answer]).to_pylist() == [False]


def test_only_the_beginning_declines():
    assert declines(["It is so. " * 40 + "I'm sorry, but I can't help with that."]).to_pylist() == [False]
