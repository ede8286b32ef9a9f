"""The questions of lesson 10, a clinical trial: other dates, leavers made on purpose, then rats."""

from functools import cache

import numpy as np
import statsmodels.formula.api as smf

from helpers import datasets, mixed
from helpers.check import Choice, Number, Several

FORMULA = "bdi ~ pre_c + beat * time"
SCORES = ["bdi_2m", "bdi_3m", "bdi_5m", "bdi_8m"]
LIMIT = 10  # in task 4 the program's patients above it at month 3 leave


@cache
def _wide():
    wide = datasets.load("btheb")
    return wide.assign(
        beat=(wide["treatment"] == "BtheB").astype(int),
        pre_c=wide["bdi_pre"] - wide["bdi_pre"].mean(),
    )


def _long(wide, zero=8):
    """A row a score, with the months since `zero` as time."""
    names = ["patient", "beat", "pre_c"]
    long = wide.melt(id_vars=names, value_vars=SCORES, var_name="visit", value_name="bdi")
    long["time"] = long["visit"].str.extract(r"(\d)", expand=False).astype(int) - zero
    return long.dropna(subset="bdi")


@cache
def _fit(zero=8):
    return mixed.fit(FORMULA, _long(_wide(), zero), "patient")


def _beat(fit):
    return fit.params["beat"]


def _at_month_5(width=1.96, months=-3, covariance=1.0):
    """Ends of the interval at month 5 from the fit whose zero is month 8."""
    fit, terms = _fit(), ["beat", "beat:time"]
    V = fit.cov_params().loc[terms, terms].to_numpy()
    middle = fit.fe_params[terms] @ [1, months]
    se = np.sqrt(V[0, 0] + months**2 * V[1, 1] + covariance * 2 * months * V[0, 1])
    return {"lower": middle - width * se, "upper": middle + width * se}


def _with_the_width_of_month_8():
    ends, at_8 = _at_month_5(width=0), 1.96 * _fit().bse_fe["beat"]
    return {"lower": ends["lower"] - at_8, "upper": ends["upper"] + at_8}


@cache
def _stayers():
    return _wide()[_wide()["bdi_8m"].notna()]


def _thinned(both=False, limit=LIMIT, lost=("bdi_5m", "bdi_8m")):
    """The stayers after those above the limit at month 3 have left, in one arm or in both."""
    wide = _stayers().copy()
    leave = (wide["bdi_3m"] > limit) & ((wide["beat"] == 1) | both)
    wide.loc[leave, list(lost)] = np.nan
    return wide


def _completers(wide, formula="bdi_8m ~ pre_c + beat"):
    return _beat(smf.ols(formula, wide).fit())


def _carried(wide):
    last = wide[SCORES].ffill(axis=1)["bdi_8m"]
    return _beat(smf.ols("last ~ pre_c + beat", wide.assign(last=last)).fit())


def _mixed(wide):
    return _beat(mixed.fit(FORMULA, _long(wide), "patient"))


@cache
def _on_purpose():
    return {
        "nobody leaves": _mixed(_stayers()),
        "completers": _completers(_thinned()),
        "mixed model": _mixed(_thinned()),
    }


@cache
def _rats(re_formula="~time"):
    rats = datasets.load("bodyweight")
    return mixed.fit("weight ~ time * diet", rats, "rat", re_formula)


def _gain(fit, days=63, term="time:diet[T.3]"):
    """How much more rats on diet 3 gain in so many days than those on diet 1, in g."""
    return {"difference": days * fit.fe_params[term], "SE": days * fit.bse_fe[term]}


QUESTIONS = {
    "10.1": Number(
        answer=lambda: _beat(_fit(zero=2)),
        insight=(
            "Moving the zero of time moves the question that one coefficient answers. The fit is "
            "the same model."
        ),
        mistakes=(
            (
                lambda: _beat(_fit(zero=8)),
                "That is the difference at month 8; put the zero of time at month 2.",
            ),
            (
                lambda: _fit().fe_params["beat:time"],
                "That is how much the difference changes in a month, the interaction.",
            ),
            (
                lambda: _fit().fe_params["time"],
                "That is the change of usual care in a month.",
            ),
            (
                lambda: _completers(_wide(), "bdi_2m ~ beat"),
                "The baseline score is missing: that is about the plain difference of the two "
                "means at month 2.",
            ),
            (
                lambda: _completers(_wide(), "bdi_2m ~ pre_c + beat"),
                "That is an ordinary regression on the scores of month 2 alone; fit the mixed "
                "model to all visits.",
            ),
            (
                lambda: _beat(_fit(zero=0)),
                "That is the difference at month 0, before the treatment. Subtract 2 from month.",
            ),
            (
                lambda: _beat(smf.ols(FORMULA, _long(_wide(), zero=2)).fit()),
                "That is ordinary least squares over all scores; let the intercept vary between "
                "patients.",
            ),
            (
                lambda: _beat(
                    mixed.fit("bdi ~ pre_c + beat + time", _long(_wide(), zero=2), "patient")
                ),
                "You left out the interaction, which makes the difference the same at all months.",
            ),
        ),
        hints=(
            "At which value of time is the coefficient of beat the difference between the arms?",
            "Make a column time = month - 2 and fit the model of the lesson with it.",
            'fit.fe_params["beat"], where fit is that of "bdi ~ pre_c + beat * time".',
        ),
    ),
    "10.2": Several(
        answer=_at_month_5,
        insight=(
            "The variance of a sum needs the covariance of its parts. With the zero of time at "
            "month 5 the summary would print the same interval."
        ),
        mistakes=(
            (
                lambda: _at_month_5(covariance=0),
                "You added the two variances and left out their covariance.",
            ),
            (
                lambda: _at_month_5(covariance=-1),
                "The covariance has the wrong sign: its weight is twice the product of 1 and -3.",
            ),
            (
                lambda: _at_month_5(width=1),
                "That is one standard error either way; an interval of 95 % takes 1.96.",
            ),
            (
                lambda: _at_month_5(months=0),
                "That is the interval at month 8; month 5 lies three months before it.",
            ),
            (
                lambda: _at_month_5(months=3),
                "That is month 11: the weight of the interaction is 5 - 8, which is negative.",
            ),
            (
                lambda: _with_the_width_of_month_8(),
                "The middle is that of month 5, the standard error still that of month 8; the "
                "interaction is uncertain as well.",
            ),
            (
                lambda: _at_month_5(width=2),
                "The ends are two standard errors away; for 95 % it is 1.96.",
            ),
        ),
        hints=(
            "At month 5 the difference is the coefficient of beat plus how many times the other?",
            "Weights 1 and -3; the variance takes two variances and the covariance from "
            "fit.cov_params().",
            "With weights k and the 2 × 2 block V of cov_params, the SE is np.sqrt(k @ V @ k).",
        ),
    ),
    "10.3": Choice(
        question=(
            "A trial of a painkiller records pain at each visit. Which patients are missing at "
            "random (MAR), but not completely at random?"
        ),
        options={
            "a": "A tenth of the forms is lost in the post.",
            "b": "Whoever reports pain above 7 is taken out after that visit.",
            "c": "Patients stay at home on days when the pain is bad.",
            "d": "Patients who got well between two visits do not come back.",
        },
        right="b",
        reasons={
            "a": "Which forms are lost has nothing to do with pain: completely at random.",
            "c": "The pain that keeps them at home is that of the visit which is missing.",
            "d": "Getting well happened after the last score and shows only in the missing one.",
        },
        insight=(
            "The score that decides is in the record. The worst off leave, and a mixed model that "
            "holds this score may still be right."
        ),
    ),
    "10.4": Several(
        answer=_on_purpose,
        insight=(
            "The rule looks only at what is in the record. The mixed model starts from there; the "
            "completers are what the rule has left over."
        ),
        mistakes=(
            (
                lambda: {
                    "completers": _on_purpose()["mixed model"],
                    "mixed model": _on_purpose()["completers"],
                },
                "Completers and mixed model are the right numbers in the wrong order.",
            ),
            (
                lambda: {"nobody leaves": _mixed(_wide())},
                "Your 'nobody leaves' is that of all 100 patients; start from those seen at month "
                "8.",
            ),
            (
                lambda: {"nobody leaves": _completers(_stayers())},
                "Your 'nobody leaves' is an ordinary regression on month 8; asked is the mixed "
                "model.",
            ),
            (
                lambda: {"completers": _completers(_stayers())},
                "Your completers still hold those who should have left.",
            ),
            (
                lambda: {"completers": _completers(_thinned(), "bdi_8m ~ beat")},
                "The regression of the completers lacks the baseline score, pre_c.",
            ),
            (
                lambda: {"completers": _carried(_thinned())},
                "You carried the last score forward; completers are those seen at month 8.",
            ),
            (
                lambda: {"mixed model": _beat(smf.ols(FORMULA, _long(_thinned())).fit())},
                "Your 'mixed model' has every score, but no random intercept.",
            ),
            (
                lambda: {"mixed model": _mixed(_thinned(both=True))},
                "In 'mixed model', patients of both arms have left; the rule is for the program.",
            ),
            (
                lambda: {"mixed model": _mixed(_thinned(lost=SCORES))},
                "In 'mixed model', leavers have gone with all their scores; those of months 2 and "
                "3 were seen, and stay.",
            ),
            (
                lambda: {"mixed model": _mixed(_thinned(lost=["bdi_8m"]))},
                "In 'mixed model', leavers have lost month 8 alone; the rule takes month 5 as "
                "well.",
            ),
            (
                lambda: {
                    "completers": _completers(_thinned(limit=LIMIT - 1)),
                    "mixed model": _mixed(_thinned(limit=LIMIT - 1)),
                },
                "Those with exactly 10 have left as well; the rule is for scores above 10.",
            ),
        ),
        hints=(
            "Set the scores of months 5 and 8 to nan where the rule says so, and analyse again.",
            'thinned.loc[leave, ["bdi_5m", "bdi_8m"]] = np.nan, where leave is True for patients '
            "with beat 1 and bdi_3m above 10.",
            'Completers: smf.ols("bdi_8m ~ pre_c + beat", thinned); mixed model: on '
            "to_long(thinned); the coefficient of beat in both.",
        ),
    ),
    "10.5": Several(
        answer=lambda: _gain(_rats()),
        insight=(
            "The rats differed by some 250 g at the first weighing. A difference of gains "
            "leaves that out, but without lots drawn it can't be read as an effect of the diet."
        ),
        mistakes=(
            (
                lambda: _gain(_rats(), days=1),
                "That is for one day; the question is about the 63 days from day 1 to day 64.",
            ),
            (
                lambda: {
                    "difference": _rats().fe_params["diet[T.3]"] + _gain(_rats(), 64)["difference"]
                },
                "That is the difference in weight at day 64, most of which was there on day 1.",
            ),
            (
                lambda: {"difference": _gain(_rats(), 64)["difference"]},
                "From day 1 to day 64 is 63 days, not 64.",
            ),
            (
                lambda: {"SE": _gain(_rats(None))["SE"]},
                "The standard error is that of random intercepts alone; let the slopes vary too.",
            ),
            (
                lambda: {"SE": _rats().bse_fe["time:diet[T.3]"]},
                "The standard error is still that of one day; it is multiplied like the estimate.",
            ),
            (
                lambda: _gain(_rats(), term="time:diet[T.2]"),
                "That is diet 2 against diet 1; the question is about diet 3.",
            ),
            (
                lambda: {
                    "difference": 63
                    * (_rats().fe_params["time"] + _rats().fe_params["time:diet[T.3]"])
                },
                "That is the whole gain on diet 3; asked is how much more it is than on diet 1.",
            ),
            (
                lambda: {
                    "difference": _rats().fe_params["diet[T.3]"],
                    "SE": _rats().bse_fe["diet[T.3]"],
                },
                "That is the difference in weight at day 0; the question is about gains.",
            ),
            (
                lambda: {"SE": np.sqrt(63) * _rats().bse_fe["time:diet[T.3]"]},
                "The standard error was multiplied by √63; the days are a plain factor, and it "
                "goes up like the estimate.",
            ),
        ),
        hints=(
            "A gain is the slope times the days. Which coefficient is the difference of slopes?",
            'The term "time:diet[T.3]" is the difference a day between diet 3 and diet 1.',
            "Multiply both that coefficient and its standard error by 63.",
        ),
    ),
}
