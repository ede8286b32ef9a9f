"""Settings that can't be, refused with the reason and the mend: explorers show it as it is."""


def check_sds(**sds):
    """Refuse a negative SD.

    Raises
    ------
    ValueError
        Naming all the SDs given.
    """
    if min(sds.values()) < 0:
        given = ", ".join(f"{name}={sd!r}" for name, sd in sds.items())
        raise ValueError(f"{given}: an SD can't be negative.")


def check_correlation(correlation):
    """Refuse what is no correlation.

    Raises
    ------
    ValueError
        If `correlation` is not between −1 and 1.
    """
    if not -1 <= correlation <= 1:
        raise ValueError(f"correlation={correlation!r}: give a number from -1 to 1.")


def check_design(n_schools, n_students, most_schools, most_students):
    """Refuse a study that can't be analysed, or is outside of the picture.

    Raises
    ------
    ValueError
        With the reason, and what to do.
    """
    for name, value, most in (
        ("n_schools", n_schools, most_schools),
        ("n_students", n_students, most_students),
    ):
        if not 1 <= value <= most or value != int(value):
            raise ValueError(f"{name}={value!r}: give a whole number from 1 to {most}.")
    if n_schools == 1:
        raise ValueError(
            "One school can't show how schools differ: there is no spread of slopes to see. "
            "Take two or more."
        )
    if n_students <= 2:
        raise ValueError(
            f"n={n_students:g} in each school: a line through one or two students meets them "
            "exactly, and nothing is left to tell slope from chance. Take three or more."
        )
