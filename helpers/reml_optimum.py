"""The search as a whole: from moments, from elsewhere, and along the axes of Λ.

A search from moments ends in a minimum, by `reml_many` or `reml_one`. Two things remain. There may
be a lower valley elsewhere: with few groups, or where the data say next to nothing in a direction,
other starts follow. And some groups may differ 10⁴ times and more as much as their rows: there
long axes of Λ drown short ones, so Z is measured along the axes, in their lengths.
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
    is_long,
    lower,
    solve,
    triangle,
    unfold,
)
from helpers.reml_reduce import ROUNDING, reduce_response, slices

FEW_GROUPS = 14, 30  # of one size; with fewer, a second valley is looked for always
MANY_GROUPS = 1000  # with more, many starts would cost more than they are worth
LENGTHS = np.geomspace(0.05, 5000, 25)  # of the axes of Λ in these
SCATTERED = 6, 96  # starts at random: with two random effects, and at most with more
MOST_CELLS = 2048  # groups × starts at random with more; no fewer starts than with two
MOST_WAYS = 40  # in which dips are looked for, beside those all around
CELLS = 4096  # groups × replicates that are challenged at once, so that memory stays bounded
MOST_TURNS = 8
FITTING = 3  # times as long as its measure, or down to a third of it, an axis may be


def optimum(Y, design, response, reml):
    """The minimum for each replicate (R, n): theta, its point, and whether it was verified.

    A second valley of the criterion is rare but for two cases, which are challenged from elsewhere:
    few groups, and a first optimum with next to no information in a direction. A balanced design
    has one valley; there only what was not verified is challenged.

    A search has no certificate. Awkward data sets, made for it, with one, two and three random
    effects (170,540, 36,560 and 2,820 of them) had 146, 665 and 142 valleys lower than the first.
    Of these it missed none, 4 and none.
    """
    if len(Y) <= FEW:
        return one_after_another(design, response, reml)
    many = Many.of(design, response, reml)
    theta, point, off = settle(minimise(moments(design, response, reml), many), many)
    sure, flat = certainty(theta, point, many)
    doubtful = ~sure | off | (not design.balanced) & (flat | few_groups(design))
    doubtful = np.flatnonzero(doubtful & ~is_long(theta))
    if doubtful.size:
        part = many.take(doubtful)
        trial, value = best_elsewhere(theta[:, doubtful], point.criterion[doubtful], part)
        better = np.flatnonzero(value < point.criterion[doubtful] - 100 * TOLERANCE)
        if better.size:
            moved, part = doubtful[better], part.take(better)
            theta[:, moved], there, off[moved] = settle(trial[:, better], part)
            point.put(moved, there)
            sure[moved], _ = certainty(theta[:, moved], there, part)
    sure &= ~off
    long = np.flatnonzero(is_long(theta))
    if long.size:
        alike = reduce_response(Y[long], design, apart=True)
        theta[:, long], there, sure[long] = one_after_another(design, alike, reml)
        point.put(long, there)
    return theta, point, sure


def one_after_another(design, response, reml):
    """`optimum` for a few replicates, by `reml_one`; only starts from elsewhere go side by side."""
    each = (response.take(slice(i, i + 1)) for i in range(len(response.unit)))
    found = [alone(design, its_response, reml) for its_response in each]
    theta, *point, sure = (beside(column) for column in zip(*found, strict=True))
    return theta, Point(*point), sure


def beside(arrays):
    """Arrays of one shape, joined along a new last axis."""
    together = np.array(arrays)
    return together.transpose(*range(1, together.ndim), 0)


def alone(design, response, reml):
    """`optimum` for one replicate: theta, the numbers of its point, whether verified."""
    one = reml_one.One(design, response.take(0), reml)
    theta = reml_one.moments(one)
    if not is_long(theta):
        at, off = reml_one.settle(reml_one.minimise(theta, one), one)
        at, sure = challenge(at, off, one, design, response)
        if not is_long(at.theta):
            return at.theta, *one.estimates(at), sure
        theta = at.theta
    return along_axes(theta, design, response, reml)


def challenge(at, off, one, design, response):
    """The better of a first minimum and those from elsewhere, and whether it was verified."""
    sure, flat = reml_one.certainty(at, one)
    if not sure or off or (not design.balanced and (flat or few_groups(design))):
        many = Many.of(design, response, one.reml, one)
        trial, value = best_elsewhere(at.theta[:, None], np.array([at.criterion]), many)
        if value[0] < at.criterion - 100 * TOLERANCE:
            at, off = reml_one.settle(trial[:, 0], one)
            sure, _ = reml_one.certainty(at, one)
    return at, sure and not off


# -------------------------------------------------------------------------- along the axes of Λ


def along_axes(theta, design, response, reml):
    """`alone` from a theta with long axes: Z is measured along them until their lengths fit."""
    q = design.sizes[2]
    theta = spread_of_groups(theta, design, response, reml)
    for _ in range(MOST_TURNS):
        measure = axes(unfold(theta, q))
        its_design, its_response, turn = measured(design, response, measure)
        start = triangle(np.linalg.solve(measure, unfold(theta, q)))[lower(q)]
        one = reml_one.One(its_design, its_response.take(0), reml)
        at, off = reml_one.settle(reml_one.minimise(start, one), one)
        sure = False
        if fits(at.theta, measure):
            at, sure = challenge(at, off, one, its_design, its_response)
        theta = triangle(measure @ unfold(at.theta, q))[lower(q)]
        if sure and fits(at.theta, measure):
            break
    criterion, beta, scale, root_beta, slope = one.estimates(at)
    back = np.linalg.inv(measure)
    return theta, criterion, turn @ beta, scale, root_beta @ turn.T, back.T @ slope @ back, sure


def axes(factor):
    """Axes of Λ in their lengths, side by side, the longest first; short ones as if 1 long."""
    axis, length, _ = np.linalg.svd(factor)
    return axis * np.maximum(length, 1)


def fits(theta, measure):
    """Whether the measure still suits Λ, of which theta is the triangle in it.

    No axis has grown much, and none fallen below what could be told from zero in this measure.
    """
    length = np.linalg.svd(measure @ unfold(theta, len(measure)), compute_uv=False)
    fallen = np.linalg.norm(measure, axis=0) > FITTING * np.maximum(length, 1)
    return not fallen.any() and np.abs(theta).max() < FITTING


def spread_of_groups(theta, design, response, reml):
    """Start where axes are long: theta with the spread of what each group's rows alone say.

    What X takes out depends on the axes; so they are found again until they stay.
    """
    q = design.sizes[2]
    told = np.linalg.svd(design.rows[:, :q].T, compute_uv=False)[:, -1]
    told = told > 0.1 * told.max()
    if told.sum() < q:
        return theta
    measure = np.sqrt((theta**2).sum()) * np.eye(q)
    for _ in range(MOST_TURNS):
        its_design, its_response, _ = measured(design, response, measure)
        one = reml_one.One(its_design, its_response.take(0), reml)
        _, beta, *_ = one.estimates(one.evaluate(np.eye(q)[lower(q)]))
        one.take_out(beta - one.centre)
        Z, y = one.rows[:, :q].T[told].swapaxes(1, 2), one.rows[:, -1].T[told]
        own = np.linalg.solve(Z, y[..., None])[..., 0].T
        factor = own * np.sqrt(one.df_within / one.ss_within / told.sum())
        if fits(triangle(factor)[lower(q)], measure):
            break
        measure = axes(measure @ factor)
    return triangle(measure @ factor)[lower(q)]


def measured(design, response, measure):
    """The same data with Z · measure for Z, and X turned to suit; and that turn (p, p).

    The columns of measure (q, q) begin with the longest. When the rows of each group are rotated so
    that Z is a triangle again, W falls off from its first row to its last, and its Cholesky factor
    keeps the digits of each. X is turned so that no column hides another, which Z may dwarf.
    Of the design and the response only what a search asks for is measured anew.
    """
    q, p = len(measure), design.sizes[1]
    rotation, Z = np.linalg.qr(np.einsum("klj,lm->jkm", design.rows[:, :q], measure))
    X = np.einsum("jkl,kaj->lja", rotation, design.rows[:, q:])
    y = np.einsum("jkl,kjr->ljr", rotation, response.rows)
    Z = Z.transpose(1, 2, 0)
    _, white = divide(np.eye(q)[lower(q)], np.concatenate([Z, X.swapaxes(1, 2)], axis=1))
    white = white[:, q:].swapaxes(1, 2).reshape(-1, p)
    turn = np.linalg.svd(np.vstack([white, design.X_within]), full_matrices=False)[2].T
    X_within = design.X_within @ turn
    rows = np.concatenate([Z, (X @ turn).swapaxes(1, 2)], axis=1)
    design = replace(design, rows=rows, X_within=X_within)
    response = response._replace(rows=y, Xy_within=X_within.T @ response.within)
    return design, response, turn


# ---------------------------------------------------------------------------- zero is zero


def at_the_edge(theta, q):
    """Theta with what is as good as zero set to zero, and which replicates are singular.

    A direction of Λ that ends there has no slope downhill, so that the criterion does not rise.
    """
    least = np.maximum(SINGULAR, ROUNDING * np.sqrt((theta**2).sum(axis=0)))
    singular = shortest(theta, q) <= least
    if q == 1 or not singular.any():
        return np.where(singular, 0, theta), singular
    theta = theta.copy()
    axis, length, _ = np.linalg.svd(unfold(theta[:, singular], q).transpose(2, 0, 1))
    length[length <= least[singular, None]] = 0
    theta[:, singular] = triangle(axis * length[:, None])[:, *lower(q)].T
    singular[singular] = length[:, -1] == 0
    return theta, singular


# ------------------------------------------------------------------------ starts from elsewhere


def few_groups(design):
    """Whether a second valley is likely enough to be looked for always.

    Where groups tell of a direction d of Z as w_j = d'Z_j'Z_j d, they are as good as
    (Σw)² / Σw² groups of one size. What counts is the direction where these are fewest. With one
    random effect looking costs little, so that more groups count as few; with two where that is
    less than half of the groups, for then some tell much more than others.
    """
    q, J = design.sizes[2:]
    told = squares(q) @ design.ZZ.reshape(-1, J)
    least, most = FEW_GROUPS
    few = {1: most, 2: min(max(J / 2, least), most)}.get(q, least)
    return (told.sum(axis=1) ** 2 < few * np.einsum("dj,dj->d", told, told)).any()


@cache
def squares(q):
    """Products of the entries of unit vectors all around, (D, q²)."""
    way = all_around(q, 8 if q == 2 else 32)
    return np.einsum("ad,bd->dab", way, way).reshape(-1, q * q)


@cache
def all_around(q, number):
    """Unit vectors (q, number), evenly for two dimensions and at random for more."""
    if q == 1:
        return np.ones((1, 1))
    if q == 2:
        angle = np.pi * np.arange(number) / number
        return np.stack([np.cos(angle), np.sin(angle)])
    way = np.random.default_rng(0).normal(size=(q, number))
    return way / np.linalg.norm(way, axis=0)


def best_elsewhere(theta, known, many, turn=0):
    """The best theta from all other starts, for each replicate, and its criterion.

    A search that ended elsewhere, and not far above what is known, is settled: it may go on. Where
    there are two valleys there may be a third, so that after a find other starts follow.
    """
    best, least = theta.copy(), np.full(theta.shape[1], np.inf)
    size = max(1, CELLS // many.design.sizes[3])
    if theta.shape[1] > size:  # so that memory stays bounded
        for some in slices(theta.shape[1], size):
            found = best_elsewhere(theta[:, some], known[some], many.take(some), turn)
            best[:, some], least[some] = found
        return best, least
    start, which = elsewhere(theta, known, many, turn)
    if not which.size:
        return best, least
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
    best[:, which[order]], least[which[order]] = trial[:, order], value[order]
    finds = np.flatnonzero(least < known - 1e-6)
    if finds.size and turn < MOST_TURNS:
        more = best_elsewhere(best[:, finds], least[finds], many.take(finds), turn + 1)
        lower_still = more[1] < least[finds]
        finds = finds[lower_still]
        best[:, finds], least[finds] = more[0][:, lower_still], more[1][lower_still]
    return best, least


def elsewhere(theta, known, many, turn):
    """Starts away from theta, (q(q+1)/2, starts), and the replicate that each is for.

    One is theta without one of its axes. The others are multiples of I; but where groups are few
    enough for more to pay, Λ at random, and with one or two random effects dips in rank one. In
    turns after a find, those at random are others, and multiples of I have been.
    """
    _, _, q, J = many.design.sizes
    every = np.arange(theta.shape[1])
    well = J <= MANY_GROUPS and few_groups(many.design)
    # With longer rows the short form of the criterion along directions loses digits.
    fan = (q == 1 or (q == 2 and well)) and np.abs(many.design.rows[:, :q]).max() < LONG
    if well and q > 1:
        number = SCATTERED[0] if q == 2 else np.clip(MOST_CELLS // J, *SCATTERED)
        start = scattered(q, turn)[:, :number]
    else:
        start = np.outer(np.eye(q)[lower(q)], () if fan or turn else (10, 50, 0.1))
    found = [(np.tile(start, len(every)), np.repeat(every, start.shape[1]))]
    axis, length, _ = np.linalg.svd(unfold(theta, q).transpose(2, 0, 1))
    for k in range(1, q):
        # `look_again` has left out the last where it is below 1; beside very long ones, digits go.
        least = 1 if k == q - 1 else SINGULAR
        long = np.flatnonzero((length[:, k] > least) & (length[:, 0] < LONG))
        rest = axis[long] * (length[long] * (np.arange(q) != k))[:, None]
        found.append((triangle(rest)[:, *lower(q)].T, long))
    if fan:
        found.append(dips(axis[:, :, 0].T, length[:, 0], known, many))
    return tuple(np.concatenate(parts, axis=-1) for parts in zip(*found, strict=True))


@cache
def scattered(q, seed):
    """Λ in all directions, with axes of all lengths, theta (q(q+1)/2, starts)."""
    rng, number = np.random.default_rng(seed), SCATTERED[-1]
    axis = np.linalg.qr(rng.normal(size=(number, q, q)))[0]
    length = np.exp(rng.uniform(*np.log(LENGTHS[[0, -1]]), (number, 1, q)))
    return triangle(axis * length)[:, *lower(q)].T


def directions(design):
    """Unit vectors (q, D) all around, for one or two random effects, one of two that are opposite.

    Among them is that of which a group tells least, for those that tell most: where a group has one
    row, or one value of x, a valley can be as narrow as the inverse of its length.
    """
    q = design.sizes[2]
    most = np.argsort(-design.ZZ.trace())[:MOST_WAYS]
    least = np.linalg.svd(design.rows[:, :q, most].T)[0][:, :, -1].T
    way = np.hstack([all_around(q, 32), least])
    return np.unique((way * np.where(way[-1] < 0, -1, 1)).round(9), axis=1)


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
    return triangle(start)[:, *lower(q)].T, which


def criterion_along(way, length, many):
    """The criterion where Λ has rank one: directions (q, D) × lengths (L,), (D, L, R).

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
    det = 1 + square * (v * v).sum(axis=0)[:, None]  # of W, (D, L, J)
    share = square / det
    vXvX = np.einsum("daj,dbj->djab", vX, vX).reshape(len(vX), J, -1)
    XX = np.eye(p) - (share @ vXvX).reshape(*det.shape[:2], p, p)
    Xy = np.stack([share @ (each[:, :, None] * vy) for each in vX.swapaxes(0, 1)], axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        L = cholesky(XX.transpose(2, 3, 0, 1))
        root = solve(L[..., None], Xy.transpose(2, 0, 1, 3))
        rss = n - share @ (vy * vy) - (root * root).sum(axis=0)
        log_det = np.log(det).sum(axis=2)
        if many.reml:
            log_det += 2 * np.log(diagonal(L)).sum(axis=0)
        value = df * (np.log(2 * np.pi / df * rss) + 1) + log_det[..., None]
    value[np.isnan(value)] = np.inf
    return value
