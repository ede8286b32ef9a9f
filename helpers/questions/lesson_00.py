"""The question of lesson 00, a first one to try."""

import numpy as np

from helpers import simulate
from helpers.check import Number


def _scores():
    return simulate.schools(30, 20, seed=3)["math_score"]


def _school_means():
    data = simulate.schools(30, 20, seed=3)
    return data.groupby("school_id")["math_score"].mean()


QUESTIONS = {
    "00.1": Number(
        answer=lambda: _school_means().std(),
        insight=(
            "Schools differ by about this much on average; how much of it is chance is a question "
            "for lessons 02 and 03."
        ),
        mistakes=(
            (lambda: _school_means().var(), "That is the variance; the question asks for the SD."),
            (
                lambda: _scores().std(),
                "You took the SD over 600 students; the question asks for that of 30 schools.",
            ),
            (
                lambda: _school_means().std() / np.sqrt(30),
                "That is the standard error of the average school, the SD divided by √30.",
            ),
            (
                lambda: _school_means().mean(),
                "That is the average of the 30 means; the question asks how far they lie apart.",
            ),
            (
                lambda: _school_means().std(ddof=0),
                "That SD divides by 30; a sample's SD divides by 29, as pandas' .std() does.",
            ),
        ),
        hints=(
            "First a mean for each school, then one SD over the means.",
            'A mean for each school: schools.groupby("school_id")["math_score"].mean().',
            "Put .std() behind the 30 means.",
        ),
    ),
}
