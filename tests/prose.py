"""Markdown read as prose: what is code, what is an equation, and which decimal numbers it states.

A number in the prose is believed when an output of the same notebook shows it. `numbers` reads
both sides; `supported` says whether one proves the other.
"""

import html
import re
from dataclasses import dataclass
from decimal import Decimal

FENCE = re.compile(r"^ {0,3}(```+|~~~+)[^\n]*\n.*?^ {0,3}\1[ \t]*$", re.M | re.S)
CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.S)
MATHS = re.compile(r"\$\$(?P<display>.+?)\$\$|\$(?P<inline>[^$]+?)\$", re.S)
# A link target, with at most one pair of brackets inside, as DOIs of Elsevier have.
LINK = re.compile(r"\]\(\s*<?((?:[^()\s<>]|\([^()\s]*\))+)>?(?:\s+\"[^\"]*\")?\s*\)")
URL = re.compile(r"(?:https?://|www\.)\S+|\b10\.\d{4,9}/\S+")
TAG = re.compile(r"</?[A-Za-z][^<>]*>|<!--.*?-->", re.S)

# Numbers with a point that measure nothing: software, licences, places in a text.
_DOTTED = r"\d+(?:\.\d+)+"
_NAMES = (
    r"python|statsmodels|pandas|numpy|scipy|matplotlib|seaborn|jupyter(?:lab)?|ipywidgets|nbval|"
    r"patsy|pyodide|pymc|bambi|lme4|nlme|mixedmodels(?:\.jl)?|versions?|release|CC BY(?:-SA)?|GPL"
)
_PLACES = (
    r"[Ss]ections?|[Ss]ec\.|§+|[Cc]hapters?|[Cc]h\.|Tables?|Figures?|[Ff]ig\.|[Ee]qs?\.|"
    r"Equations?|Appendix|[Ee]xercises?|[Qq]uestions?|[Tt]asks?|[Ll]essons?"
)
_PLACE = r"(?!0\.)\d{1,2}(?:\.\d{1,2})+(?!\d)"
_AND = r"\s*(?:,|and|or|to|–|-)\s*"
LABEL = re.compile(
    rf"\b(?i:{_NAMES})\s*[≥≤<>=~v]*\s*{_DOTTED}(?:{_AND}{_DOTTED})*"
    rf"|(?<!\w)(?:{_PLACES})\s*{_PLACE}(?:{_AND}{_PLACE})*"
)
# R's name is one letter, so its case counts: "R 4.5", never "r 0.5".
R_VERSION = re.compile(rf"\bR\s+{_DOTTED}")

_SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
NUMBER = re.compile(
    r"(?P<sign>[+−-]?)(?<![\w.])"
    r"(?P<digits>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?\.\d+(?!\.?\d)|\d+(?=[eE][-+]?\d))"
    r"(?:[eE](?P<e>[-+]?\d+)"
    r"|\s*(?:×|x|\*)\s*10(?:\s*\^\s*(?P<caret>[−-]?\s*\d+)|(?P<raised>[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)))?"
    r"(?P<percent>\s*%)?"
)


@dataclass(frozen=True)
class Number:
    """A decimal number as written.

    `value` is its size, `step` one unit of its last digit; `sign` is "-", "+" or "" (none
    written), and `percent` tells whether a percent sign follows.
    """

    text: str
    value: Decimal
    step: Decimal
    sign: str
    percent: bool


def without_code(markdown):
    """Markdown with code blocks and code spans blanked; lines stay where they are."""

    def blank(match):
        return re.sub(r"[^\n]", " ", match[0])

    return CODE.sub(blank, FENCE.sub(blank, markdown))


def equations(markdown):
    """List the LaTeX between dollar signs, code left out."""
    found = MATHS.finditer(without_code(markdown))
    return [m["display"] or m["inline"] for m in found]


def without_equations(markdown):
    """Blank the equations of Markdown whose code is already blanked."""
    return MATHS.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), markdown)


def _plain_latex(latex):
    """LaTeX with its commands, braces and spaces out of the way of the numbers."""
    latex = re.sub(r"(?<=\d)(?:\\,|\{,\})(?=\d{3})", ",", latex)
    latex = latex.replace(r"\times", "×").replace(r"\cdot", "×").replace(r"\%", "%")
    latex = re.sub(r"\\(?:[A-Za-z]+|.)", " ", latex)
    # A space that only came from braces must not part a minus sign from its number.
    return re.sub(r"(\^\s*)\{([^{}]*)\}", r"\1\2", latex).replace("{", "").replace("}", " ")


def statements(markdown):
    """The text in which a number states something: no code, link targets, versions or places."""
    text = without_code(markdown)
    text = MATHS.sub(lambda m: f" {_plain_latex(m['display'] or m['inline'])} ", text)
    text = LINK.sub("] ", text)
    text = URL.sub(" ", text)
    text = TAG.sub(" ", text)
    text = R_VERSION.sub(" ", LABEL.sub(" ", text))
    return re.sub(r"(?<=\d)[\u2009\u202f](?=\d{3})", ",", html.unescape(text))


def _written_sign(match):
    """The sign of a number, or "" when it is a range's dash, a hyphen or a subtraction."""
    before = match.string[: match.start()]
    if not match["sign"] or re.search(r"[\w.)\]%]$", before):
        return ""
    return "+" if match["sign"] == "+" else "-"


def numbers(text):
    """Every number with a decimal point in `text`, as a list of `Number`.

    Dates and versions (two points or more) are left out.

    >>> [(n.text, str(n.value), n.sign) for n in numbers("from −1,234.5 to 0.2–0.4, v0.15.0")]
    [('−1,234.5', '1234.5', '-'), ('0.2', '0.2', ''), ('0.4', '0.4', '')]
    """
    found = []
    for match in NUMBER.finditer(text):
        digits = Decimal(match["digits"].replace(",", ""))
        power = match["e"] or match["caret"] or (match["raised"] or "0").translate(_SUPERSCRIPTS)
        scale = Decimal(10) ** int(power.replace("−", "-").replace(" ", ""))
        sign = _written_sign(match)
        text_ = match[0].strip() if sign or not match["sign"] else match[0][1:].strip()
        step = Decimal(1).scaleb(digits.as_tuple().exponent) * scale
        found.append(Number(text_, digits * scale, step, sign, bool(match["percent"])))
    return found


def _readings(number):
    """(value, step) pairs a number may mean: 95.3 % is 95.3 and 0.953."""
    yield number.value, number.step
    if number.percent:
        yield number.value / 100, number.step / 100


def supported(stated, shown):
    """Whether one of the numbers `shown` rounds to the number `stated`.

    Rounding is to the digits stated, halves either way. A stated sign must be there; a number
    stated without one ("a drop of 0.5") may be negative where it is shown.

    >>> [stated], shown = numbers("a slope of 0.694"), numbers("0.6941")
    >>> supported(stated, shown)
    True
    """
    for number in shown:
        if stated.sign and (stated.sign == "-") != (number.sign == "-"):
            continue
        for value, step in _readings(stated):
            if any(abs(other - value) * 2 <= step for other, _ in _readings(number)):
                return True
    return False
