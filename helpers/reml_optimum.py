"""The search as a whole: from moments, from elsewhere, and along the axes of Λ.

A search from moments ends in a minimum, by `reml_many` or `reml_one`. Two things remain. There may
be a lower valley elsewhere: with few groups, or where the data say next to nothing in a direction,
other starts follow. And groups may differ 10⁴ times and more as much as their rows: there long axes
of Λ drown short ones, so Z is measured anew, so that groups tell of all directions alike.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from helpers import reml_one
from helpers.reml_many import FEW, Many, Point, certainty, minimise, moments, settle, shortest
from helpers.reml_one import (
    FAR,
    LONG,
    SHORT,
    SINGULAR,
    TOLERANCE,
    cholesky,
    diagonal,
    divide,
    factors,
    is_long,
    lower,
    solve,
    thetas,
)
from helpers.reml_reduce import BLOCK, ROUNDING, all_around, slices

FEW_GROUPS = 14, 30  # of one size; with fewer, a second valley is looked for always
UNEVEN = 4  # groups of one size, if they are fewer than two thirds of all: more starts
MANY_GROUPS = 1000  # with more, many starts would cost more than they are worth
LENGTHS = np.geomspace(0.05, 5000, 25)  # of the axes of Λ where dips are looked for
SCATTERED = 6, 96, 384  # starts all over: with two random effects; at most with more; if uneven
MOST_CELLS = 8192  # groups × starts all over then
NEAR = 192  # starts near what is known, with more than two random effects, if uneven
AROUND = 32, 128  # directions in which dips are looked for; if uneven
MOST_LITTLE = 6  # starts where a group tells little
MOST_WAYS = 40  # of groups' own directions beside these
CELLS = 4096, 1024  # groups × replicates challenged at once, as memory is bounded; if uneven
MOST_ROUNDS = 16  # of measuring Z anew, and of looking again after a find
FITTING = 5  # times its measure, or down to a fifth of it, is near enough


def optimum(design, response, reml):
    """The minimum for each replicate: theta, its point, and whether it was verified.

    A second valley of the criterion is rare but for two cases, which are challenged from elsewhere:
    few groups, and a first optimum with next to no information in a direction. A balanced design
    has one valley; there only what was not verified is challenged.

    A search has no certificate. Awkward data sets, made for it, with one, two and three random
    effects (441,660, 87,800 and 10,080 of them) had 400, 2,568 and 884 valleys lower than the
    first. It finds them all; one of them it had missed, and for it begins now also where a group
    tells little.
    """
    search = one_after_another if len(response.unit) <= FEW else side_by_side
    theta, point, downhill, sure, flat, ones = search(design, response, reml)
    long = is_long(theta)
    doubtful = np.flatnonzero(in_doubt(downhill, sure, flat, design) & ~long)
    if doubtful.size:
        its_ones = ones if ones is None else ones[doubtful]
        many = Many.of(design, response.take(doubtful), reml, its_ones)
        challenge(doubtful, theta, point, downhill, sure, many)
        long = is_long(theta)
    sure &= ~downhill
    from_afar = design.sizes[2] > 1 and not design.balanced and worth_many_starts(design)
    if long.any():
        long = np.flatnonzero(long)
        for part in slices(long.size, BLOCK // design.sizes[3]):
            some = long[part]
            its_response = response.take(some)
            start = spread_of_groups(theta[:, some], design, its_response, reml)
            found = along_axes(start, design, its_response, reml)
            if from_afar:
                challenge_from_afar(*found, design, its_response, reml)
            theta[:, some], there, sure[some] = found
            point.put(some, there)
    if from_afar:
        challenge_where_little_is_told(theta, point, sure, design, response, reml)
    return theta, point, sure


def side_by_side(design, response, reml):
    """The first minimum for each replicate: theta, its point, and what tells whether to doubt it.

    Whether a way down is left, whether it was verified, and whether theta is badly determined.
    """
    many = Many.of(design, response, reml)
    theta, point, downhill = settle(minimise(moments(design, response, reml), many), many)
    return theta, point, downhill, *certainty(theta, point, many), None


def one_after_another(design, response, reml):
    """`side_by_side` for a few replicates, by `reml_one`; and the `One` of each, (R,)."""
    ones = [reml_one.One(design, response.take(i), reml) for i in range(len(response.unit))]
    found = [alone(one) for one in ones]
    theta, *point, flags = (beside(column) for column in zip(*found, strict=True))
    return theta, Point(*point), *flags, np.array(ones)


def alone(one):
    """`side_by_side` for one replicate, in numbers."""
    theta = reml_one.moments(one)
    if is_long(theta):
        return theta, *one.estimates(one.evaluate(theta)), (True, False, False)
    at, downhill = reml_one.settle(reml_one.minimise(theta, one), one)
    return at.theta, *one.estimates(at), (downhill, *reml_one.certainty(at, one))


def beside(arrays):
    """Arrays of one shape, joined along a new last axis."""
    together = np.array(arrays)
    return together.transpose(*range(1, together.ndim), 0)


def in_doubt(downhill, sure, flat, design):
    """Which minima are to be challenged from elsewhere."""
    doubt = downhill | ~sure
    return doubt if design.balanced else doubt | flat | few_groups(design)


def challenge(doubtful, theta, point, downhill, sure, many):
    """Put what is better elsewhere in the place of some minima; many has only these."""
    trial, value = best_elsewhere(theta[:, doubtful], point.criterion[doubtful], many)
    better = np.flatnonzero(value < point.criterion[doubtful] - 100 * TOLERANCE)
    if better.size:
        moved, many = doubtful[better], many.take(better)
        theta[:, moved], there, downhill[moved] = settle(trial[:, better], many)
        point.put(moved, there)
        sure[moved], _ = certainty(theta[:, moved], there, many)


def challenge_from_afar(theta, point, sure, design, response, reml):
    """`challenge` for long axes, in Z as it was, where all other axes are as near as each other.

    Values have lost digits there; so the best end of all searches is measured along its own axes.
    """
    rest = np.arange(theta.shape[1])
    for finds in range(MOST_ROUNDS):
        its_response = response.take(rest)
        many = Many.of(design, its_response, reml)
        trial = best_end(scattered(design.sizes[2], finds), many)
        rest = take_lower(rest, along_axes(trial, design, its_response, reml), theta, point, sure)
        if not rest.size:
            break


def challenge_where_little_is_told(theta, point, sure, design, response, reml):
    """`challenge` from Λ so long that a group tells of it what it hardly tells of Z."""
    R, J = len(sure), design.sizes[3]
    for start in little_told(design).T:
        for part in slices(R, max(1, BLOCK // J)):
            rest = np.arange(R)[part]
            trial = np.repeat(start[:, None], len(rest), axis=1)
            found = along_axes(trial, design, response.take(rest), reml)
            take_lower(rest, found, theta, point, sure)


def take_lower(rest, found, theta, point, sure):
    """Put what `along_axes` found for the replicates `rest` where it is lower; which those are."""
    trial, there, its_sure = found
    lower = np.flatnonzero(there.criterion < point.criterion[rest] - 100 * TOLERANCE)
    rest = rest[lower]
    theta[:, rest], sure[rest] = trial[:, lower], its_sure[lower]
    point.put(rest, Point(*(part[..., lower] for part in there)))
    return rest


def best_end(start, many):
    """The best end of searches from the same starts (q(q+1)/2, starts), for each replicate."""
    found, number = [], start.shape[1]
    every = np.arange(len(many.response.unit))
    for some in slices(len(every), max(1, CELLS[1] // many.design.sizes[3])):
        part = many.take(np.repeat(every[some], number))
        trial = minimise(np.tile(start, len(every[some])), part)
        value = part.evaluate(trial).criterion.reshape(-1, number)
        found.append(
            trial.reshape(len(trial), -1, number)[:, range(len(value)), value.argmin(axis=1)]
        )
    return np.concatenate(found, axis=1)


# -------------------------------------------------------------------------- along the axes of Λ


def along_axes(theta, design, response, reml):
    """`optimum` from theta with long axes: Z is measured along them, and anew until that suits."""
    q, theta = design.sizes[2], theta.copy()
    sure, rest, point = np.zeros(theta.shape[1], dtype=bool), np.arange(theta.shape[1]), None
    measure = axes(factors(theta, q))
    start = thetas(np.linalg.solve(measure, factors(theta, q)))
    for _ in range(MOST_ROUNDS):
        *its_data, turn = measured(design, response.take(rest), measure)
        many = Many(*its_data, reml)
        trial, at, downhill = settle(minimise(start, many), many)
        well, flat = certainty(trial, at, many)
        change, suits = natural_measure(trial, many)
        doubtful = np.flatnonzero(in_doubt(downhill, well, flat, design) & suits)
        if doubtful.size:
            challenge(doubtful, trial, at, downhill, well, many.take(doubtful))
            change, suits = natural_measure(trial, many)
        theta[:, rest] = thetas(measure @ factors(trial, q))
        at = turned_back(at, measure, turn)
        if point is None:
            point = at
        else:
            point.put(rest, at)
        sure[rest] = well & ~downhill & suits
        again = ~sure[rest]
        if not again.any():
            break
        rest, measure = rest[again], (measure @ change)[again]
        start = thetas(np.linalg.solve(change, factors(trial, q))[again])
    return theta, point, sure


def natural_measure(theta, many):
    """What Z is to be multiplied by, (R, q, q), so that groups tell of all directions alike.

    On average over groups Z'W⁻¹Z is I then: a step of 1 in Λ is of the order of its error, in
    whatever direction. Columns begin with the longest. And whether it is nearly so already.
    """
    q, J = many.design.sizes[2:]
    _, white = divide(theta, many.design.rows[:, :q])
    rows = white.transpose(3, 0, 2, 1).reshape(-1, q * J, q) / np.sqrt(J)
    _, length, way = np.linalg.svd(rows, full_matrices=False)
    suits = ((length < FITTING) & (length > 1 / FITTING)).all(axis=1)
    measure = way.swapaxes(1, 2) / np.maximum(length, 1e-12)[:, None]
    return measure[:, :, ::-1], suits


def turned_back(point, measure, turn):
    """The point in X and Z as they were before they were `measured`."""
    back = np.linalg.inv(measure)
    return point._replace(
        beta=np.einsum("rab,br->ar", turn, point.beta),
        L_inv=np.einsum("abr,rcb->acr", point.L_inv, turn),
        by_psi=np.einsum("rla,lmr,rmb->abr", back, point.by_psi, back),
    )


def axes(factor):
    """Axes of Λ (R, q, …) in their lengths, the longest first; short ones as if 1 long."""
    axis, length, _ = np.linalg.svd(factor, full_matrices=False)
    return axis * np.maximum(length, 1)[:, None]


def fits(theta, measure):
    """Whether the measure (R, q, q) still suits Λ, of which theta is the triangle in it.

    No axis has grown much, and none fallen far, as long as it is longer than 1.
    """
    length = np.linalg.svd(measure @ factors(theta, measure.shape[1]), compute_uv=False)
    fallen = np.linalg.norm(measure, axis=1) > FITTING * np.maximum(length, 1)
    return ~fallen.any(axis=1) & (np.abs(theta).max(axis=0) < FITTING)


def spread_of_groups(theta, design, response, reml):
    """Start where axes are long: theta with the spread of what each group's rows alone say.

    What X takes out depends on the axes; so they are found again until they stay.
    """
    q = design.sizes[2]
    told = np.linalg.svd(design.rows[:, :q].T, compute_uv=False)[:, -1]
    informative = told > 0.1 * told.max()
    if informative.sum() < q:
        return theta
    measure = np.sqrt((theta**2).sum(axis=0))[:, None, None] * np.eye(q)
    theta, rest = theta.copy(), np.arange(theta.shape[1])
    for _ in range(MOST_ROUNDS):
        its_design, its_response, _ = measured(design, response.take(rest), measure)
        identity = thetas(np.broadcast_to(np.eye(q), measure.shape))
        point = Many(its_design, its_response, reml).evaluate(identity)
        Z, X = its_design.rows[:, :q, informative], its_design.rows[:, q:, informative]
        y = its_response.rows[:, informative] - np.einsum("kajr,ar->kjr", X, point.beta)
        own = np.linalg.solve(Z.transpose(3, 2, 0, 1), y.T[..., None])[..., 0]
        sigma = np.sqrt(its_response.ss_within / design.df_within * informative.sum())
        factor = own.swapaxes(1, 2) / sigma[:, None, None]
        theta[:, rest] = thetas(measure @ factor)
        again = ~fits(thetas(factor), measure)
        if not again.any():
            break
        rest, measure = rest[again], axes(measure @ factor)[again]
    return theta


def measured(design, response, measure):
    """The same data with Z · measure for Z, and X turned to suit; and that turn (R, p, p).

    The rows of each group are rotated so that Z is a triangle again. Where the columns of measure
    (R, q, q) begin with the longest, W then falls off from its first row to its last, and its
    Cholesky factor keeps the digits of each. X is turned so that no column hides another, which Z
    may dwarf. Of the design and the response only what a search asks for is measured anew.
    """
    (R, q, _), (_, p, _, J) = measure.shape, design.sizes
    rotation, Z = np.linalg.qr(np.einsum("klj,rlm->rjkm", design.rows[:, :q], measure))
    X = np.einsum("rjkl,kaj->rjla", rotation, design.rows[:, q:])
    y = np.einsum("rjkl,kjr->ljr", rotation, response.rows)
    identity = thetas(np.broadcast_to(np.eye(q), measure.shape))
    _, white = divide(identity, np.concatenate([Z, X], axis=-1).transpose(2, 3, 1, 0))
    white = white[:, q:].transpose(3, 0, 2, 1).reshape(R, q * J, p)
    within = np.broadcast_to(design.X_within, (R, *design.X_within.shape))
    turn = np.linalg.svd(np.concatenate([white, within], axis=1), full_matrices=False)[2]
    turn = turn.swapaxes(1, 2)
    X_within = (within @ turn).transpose(1, 2, 0)
    rows = np.concatenate([Z, X @ turn[:, None]], axis=-1).transpose(2, 3, 1, 0)
    design = replace(design, rows=rows, X_within=X_within, origin=design)
    Xy_within = np.einsum("war,wr->ar", X_within, response.within)
    return design, response._replace(rows=y, Xy_within=Xy_within), turn


# ---------------------------------------------------------------------------- zero is zero


def at_the_edge(theta, q):
    """Theta with what is as good as zero set to zero, and which replicates are singular.

    A direction of Λ that ends there has no slope downhill, so that the criterion does not rise.
    """
    zero = np.maximum(SINGULAR, ROUNDING * np.sqrt((theta**2).sum(axis=0)))
    singular = shortest(theta, q) <= zero
    if q == 1 or not singular.any():
        return np.where(singular, 0, theta), singular
    theta = theta.copy()
    axis, length, _ = np.linalg.svd(factors(theta[:, singular], q))
    length[length <= zero[singular, None]] = 0
    theta[:, singular] = thetas(axis * length[:, None])
    singular[singular] = length[:, -1] == 0
    return theta, singular


# ------------------------------------------------------------------------ starts from elsewhere


def few_groups(design):
    """Whether a second valley is likely enough to be looked for always.

    With one random effect looking costs little, so that more groups count as few; with two where
    what they are worth is less than half of them, for then some tell much more than others.
    """
    q, J = design.sizes[2:]
    few, more = FEW_GROUPS
    few = {1: more, 2: min(max(J / 2, few), more)}.get(q, few)
    return design.effective_groups < few


def worth_many_starts(design):
    """Whether groups are few enough, in number too, for many starts: they take memory and time."""
    return design.sizes[3] <= MANY_GROUPS and few_groups(design)


def is_uneven(design):
    """Whether so few groups tell most that valleys can be many, and narrow."""
    return bool(design.effective_groups < min(UNEVEN, design.sizes[3] * 2 / 3))


def best_elsewhere(theta, known, many, finds=0):
    """The best theta from all other starts, for each replicate, and its criterion.

    A search that ended elsewhere, and not far above what is known, is settled: it may go on. Where
    there are two valleys there may be a third, so that after a find other starts follow.
    """
    best, lowest = theta.copy(), np.full(theta.shape[1], np.inf)
    size = max(1, CELLS[is_uneven(many.design)] // many.design.sizes[3])
    if theta.shape[1] > size:  # so that memory stays bounded
        for some in slices(theta.shape[1], size):
            found = best_elsewhere(theta[:, some], known[some], many.take(some), finds)
            best[:, some], lowest[some] = found
        return best, lowest
    start, which = elsewhere(theta, known, many, finds)
    if not which.size:
        return best, lowest
    part = many.take(which)
    trial = minimise(start, part)
    value = part.evaluate(trial).criterion
    with np.errstate(invalid="ignore"):  # both may be infinite
        rise = value - known[which]
    new = np.flatnonzero((rise < FAR) & (np.abs(rise) > 1e-6))
    if new.size:
        trial[:, new], point, _ = settle(trial[:, new], part.take(new), rounds=2)
        value[new] = point.criterion
    order = np.argsort(-value)
    best[:, which[order]], lowest[which[order]] = trial[:, order], value[order]
    found = np.flatnonzero(lowest < known - 1e-6)
    if found.size and finds < MOST_ROUNDS:
        more = best_elsewhere(best[:, found], lowest[found], many.take(found), finds + 1)
        lower_still = more[1] < lowest[found]
        found = found[lower_still]
        best[:, found], lowest[found] = more[0][:, lower_still], more[1][lower_still]
    return best, lowest


def elsewhere(theta, known, many, finds):
    """Starts away from theta, (q(q+1)/2, starts), and the replicate that each is for.

    Some are theta without one of its axes. The others are multiples of I; but where groups are few
    enough for more to pay, Λ all over, Λ near theta if there are more than two random effects, and
    dips in rank one if there are two, or one and however many groups. After a find, those all over
    are others, and multiples of I have been.
    """
    _, _, q, J = many.design.sizes
    every = np.arange(theta.shape[1])
    well = worth_many_starts(many.design)
    fan = not many.design.own and (q == 1 or (q == 2 and well))
    # With longer rows the short form of the criterion along directions loses digits.
    fan = fan and np.abs(many.design.rows[:, :q]).max() < LONG
    if well and q > 1:
        few, more, most = SCATTERED
        number = most if is_uneven(many.design) else more if q > 2 else few
        start = scattered(q, finds)[:, : max(few, min(number, MOST_CELLS // J))]
    else:
        start = np.outer(np.eye(q)[lower(q)], () if fan or finds else (10, 50, 0.1))
    found = [(np.tile(start, len(every)), np.repeat(every, start.shape[1]))]
    axis, length, _ = np.linalg.svd(factors(theta, q))
    for k in range(1, q):
        # `look_again` has left out the last where it is below 1; beside very long ones, digits go.
        short = 1 if k == q - 1 else SINGULAR
        long = np.flatnonzero((length[:, k] > short) & (length[:, 0] < LONG))
        rest = axis[long] * (length[long] * (np.arange(q) != k))[:, None]
        found.append((thetas(rest), long))
    if well and q > 2 and is_uneven(many.design):
        found.append((near(axis, length), np.repeat(every, NEAR)))
    if fan:
        found.append(dips(axis[:, :, 0].T, length[:, 0], known, many))
    return tuple(np.concatenate(parts, axis=-1) for parts in zip(*found, strict=True))


@cache
def scattered(q, finds):
    """Λ in all directions, with axes of all lengths, theta (q(q+1)/2, starts); anew after a find.

    Where numbers at random leave gaps, multiples of one irrational point, modulo 1, leave few: with
    as many starts a half to a third of the valleys are missed. They give logarithms of lengths, and
    angles in the planes of each two axes.
    """
    number, m = SCATTERED[-1], q * (q + 1) // 2
    golden = np.roots([1, *[0] * (m - 1), -1, -1]).real.max()  # golden^(m + 1) = golden + 1
    multiple = 1 + finds * number + np.arange(number)
    share = (0.5 + multiple[:, None] / golden ** np.arange(1, m + 1)) % 1
    shortest, longest = np.log(LENGTHS[[0, -1]])
    length = np.exp(shortest + (longest - shortest) * share[:, :q])
    axis = np.tile(np.eye(q), (number, 1, 1))
    planes = zip(*np.triu_indices(q, 1), np.pi * share.T[q:, :, None], strict=True)
    for one, other, angle in planes:
        a, b = axis[..., one], axis[..., other]
        a[:], b[:] = np.cos(angle) * a + np.sin(angle) * b, np.cos(angle) * b - np.sin(angle) * a
    return thetas(axis * length[:, None])


def near(axis, length):
    """Λ near what is known, of axes (R, q, q) and their lengths (R, q): theta, NEAR for each.

    One half is turned, a little or much, and has other lengths. The other half keeps the longest
    axis, and has others beside it.
    """
    turn, change, share = chances(axis.shape[1])
    half = NEAR // 2
    size = np.maximum(length, SHORT)[:, None] * change
    longest = np.maximum(size[:, half:, :1], 1)
    size[:, half:] = LENGTHS[0] * (longest / LENGTHS[0]) ** share
    return thetas(((axis[:, None] @ turn) * size[:, :, None]).reshape(-1, *axis.shape[1:]))


def little_told(design):
    """Λ along directions of which a group tells something, but little: theta (q(q+1)/2, starts).

    As where a predictor hardly varies within it: Λ is as long as it takes to be seen there.
    """
    q, least, most = design.sizes[2], 1e-10, 1e-3
    axis, told, _ = np.linalg.svd(design.rows[:, :q].T)
    j, k = np.nonzero((told > least) & (told < most))
    long = (axis[j, :, k] / told[j, k, None])[:MOST_LITTLE, :, None]
    return thetas(np.concatenate([long, np.tile(SHORT * np.eye(q), (len(long), 1, 1))], axis=2))


@cache
def chances(q):
    """For `near`: turns (NEAR, q, q), changes of lengths (NEAR, q), shares of the longest."""
    rng, half = np.random.default_rng(0), NEAR // 2
    angle = np.exp(rng.uniform(np.log(1e-3), np.log(1.5), (half, 1, 1)))
    step = angle * rng.normal(size=(half, q, q))
    turn = np.tile(np.eye(q), (NEAR, 1, 1))
    turn[:half] = np.linalg.qr(turn[:half] + step - step.swapaxes(1, 2))[0]
    turn[half:, 1:, 1:] = np.linalg.qr(rng.normal(size=(half, q - 1, q - 1)))[0]
    share = rng.uniform(size=(half, q))
    share[:, 0] = 1
    return turn, np.exp(rng.normal(size=(NEAR, q))), share


def directions(design):
    """Unit vectors (q, directions) all around, one of two that are opposite.

    Among them is that of which a group tells least, for those that tell most: where a group has one
    row, or one value of x, a valley can be as narrow as the inverse of its length. Where groups are
    uneven it can be between two of these, too.
    """
    q, uneven = design.sizes[2], is_uneven(design)
    most = np.argsort(-design.ZZ.trace())[:MOST_WAYS]
    weakest = up(np.linalg.svd(design.rows[:, :q, most].T)[0][:, :, -1].T)
    if q == 2 and uneven:
        weakest = weakest[:, np.argsort(weakest[0])]
        weakest = np.hstack([weakest, up(weakest[:, 1:] + weakest[:, :-1])])
    return np.unique(np.hstack([all_around(q, AROUND[uneven]), weakest]).round(9), axis=1)


def up(way):
    """Unit vectors along these (q, …), of two that are opposite the one that points up."""
    length = np.maximum(np.linalg.norm(way, axis=0), 1e-300)
    return way * (np.where(way[-1] < 0, -1, 1) / length)


def dips(axis, reach, known, many):
    """Where Λ of rank one is lower than its neighbours, but not beside the known: θ, replicates.

    Of the known, axis (q, R) is the direction of the longest axis, reach (R,) its length and
    known (R,) the criterion; what is lower than that is another valley, however near.
    """
    way = directions(many.design)
    q = len(way)
    value = criterion_along(way, LENGTHS, many)
    rim = np.pad(value, ((0, 0), (1, 1), (0, 0)), constant_values=np.inf)
    low = (value <= rim[:, :-2]) & (value <= rim[:, 2:])
    nearest = np.argsort(-np.abs(way.T @ way), axis=0)[: 2 * q - 1]  # itself, and its neighbours
    for other in nearest[1:]:
        low &= value <= value[other]
    low[:, 0] &= value[:, 0] == value[:, 0].min(axis=0)  # so near zero one is as good as all
    i, k, which = np.nonzero(low)
    around = nearest[:, np.abs(way.T @ axis).argmax(axis=0)]
    beside = (around[:, which] == i).any(axis=0) | (reach[which] <= LENGTHS[0])
    beside &= value[i, k, which] > known[which]
    size = np.clip(reach[which], LENGTHS[0], LENGTHS[-1])
    beside &= np.abs(np.log(size / LENGTHS[k])) <= np.log(LENGTHS[1] / LENGTHS[0])
    i, k, which = i[~beside], k[~beside], which[~beside]
    # A little in every direction, or the others would stay closed.
    short = np.broadcast_to(SHORT * np.eye(q), (len(which), q, q))
    start = np.concatenate([(way[:, i] * LENGTHS[k]).T[..., None], short], axis=2)
    return thetas(start), which


def criterion_along(way, length, many):
    """The criterion where Λ has rank one, (directions, lengths, R), for way (q, directions).

    There W = I + λ² vv' with v = Z·way, and W⁻¹ = I − λ² vv' / (1 + λ² v'v); the rest is products
    of matrices. It costs little, and some digits: all is a difference from least squares, where
    X'X = I, X'y = 0 and y'y = n. Where X is lost in rounding, it is inf.
    """
    n, p, q, J = many.design.sizes
    df = n - p if many.reml else n
    Z, X, y = many.design.rows[:, :q], many.design.rows[:, q:], many.response.rows[:q]
    v = np.einsum("kaj,ad->kdj", Z, way)
    vX, vy = np.einsum("kdj,kaj->daj", v, X), np.einsum("kdj,kjr->djr", v, y)
    square = length[:, None] ** 2
    det = 1 + square * (v * v).sum(axis=0)[:, None]  # of W, (directions, lengths, J)
    share = square / det
    vXvX = np.einsum("daj,dbj->djab", vX, vX).reshape(len(vX), J, -1)
    XX = np.eye(p) - (share @ vXvX).reshape(*det.shape[:2], p, p)
    Xy = np.stack([share @ (each[:, :, None] * vy) for each in vX.swapaxes(0, 1)], axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        L = cholesky(XX.transpose(2, 3, 0, 1))
        fitted = solve(L[..., None], Xy.transpose(2, 0, 1, 3))
        rss = n - share @ (vy * vy) - (fitted * fitted).sum(axis=0)
        log_det = np.log(det).sum(axis=2)
        if many.reml:
            log_det += 2 * np.log(diagonal(L)).sum(axis=0)
        value = df * (np.log(2 * np.pi / df * rss) + 1) + log_det[..., None]
    value[np.isnan(value)] = np.inf
    return value
