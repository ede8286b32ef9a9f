# Fits the battery with lme4 and writes lme4.json and battery.json.gz next to this script.
#
#   Rscript tests/reference/make_reference.R
#
# Takes about five minutes. Needs R with lme4, nlme, mlmRev, HSAUR3, bayesm, AER, plm, carData,
# optimx, numDeriv, minqa, nloptr.
# README.md in this folder describes the cases, the method and the sources of the data.

suppressPackageStartupMessages({
  library(lme4)
  library(optimx)
})
RNGkind("Mersenne-Twister", "Inversion", "Rejection")

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)))
MAX_GROUPS <- 20L

# --- JSON: compact, keys sorted, shortest text that reads back to the same double ---------------

number <- function(x) {
  short <- sprintf("%.15g", x)
  longer <- which(is.finite(x) & as.numeric(short) != x)
  short[longer] <- sprintf("%.17g", x[longer])
  short[!is.finite(x)] <- "null"
  short
}

json <- function(x) {
  if (is.null(x)) return("null")
  if (is.list(x) && !is.null(names(x))) {
    x <- x[order(names(x), method = "radix")]
    return(paste0("{", paste0('"', names(x), '":', vapply(x, json, ""), collapse = ","), "}"))
  }
  if (is.list(x)) return(paste0("[", paste(vapply(x, json, ""), collapse = ","), "]"))
  if (is.matrix(x)) return(json(lapply(seq_len(nrow(x)), function(i) I(x[i, ]))))
  text <- if (is.character(x)) paste0('"', gsub('"', '\\\\"', x), '"')
          else if (is.logical(x)) c("false", "true")[x + 1]
          else number(x)
  if (length(text) == 1 && !inherits(x, "AsIs")) return(text)
  paste0("[", paste(text, collapse = ","), "]")
}

# --- tables ------------------------------------------------------------------------------------

tables <- list()

# `stored = FALSE`: the course has these rows in data/, and Python reads them there.
add_table <- function(name, frame, group, stored = TRUE) {
  group <- as.character(group)
  keep <- stats::complete.cases(frame) & !is.na(group)
  frame <- frame[keep, , drop = FALSE]
  group <- group[keep]
  if (stored) group <- as.integer(factor(group, sort(unique(group), method = "radix")))
  tables[[name]] <<- list(frame = data.frame(frame, g = group), stored = stored)
}

is_level <- function(x, level) as.numeric(as.character(x) == level)

course_tables <- function() {
  school <- nlme::MathAchSchool
  hsb <- as.data.frame(nlme::MathAchieve)
  at <- match(as.character(hsb$School), as.character(school$School))
  meanses <- school$MEANSES[at]
  add_table("hsb", with(hsb, data.frame(
    mathach = MathAch, ses = SES, meanses = meanses, cses = SES - meanses,
    catholic = is_level(school$Sector[at], "Catholic"))), hsb$School, stored = FALSE)
  add_table("sleepstudy", with(sleepstudy, data.frame(reaction = Reaction, days = Days,
    days2 = Days^2)), sleepstudy$Subject, stored = FALSE)
  article <- read.csv(file.path(here, "..", "..", "data", "article.csv"))
  add_table("article", article[c("math_score", "app_hours")], article$school_id, stored = FALSE)
  d <- as.data.frame(nlme::Orthodont)
  add_table("orthodont", with(d, data.frame(distance, age, age11 = age - 11,
    female = is_level(Sex, "Female"), age2 = (age - 11)^2)), d$Subject, stored = FALSE)
  d <- as.data.frame(nlme::BodyWeight)
  add_table("bodyweight", with(d, data.frame(weight, time = Time, diet2 = is_level(Diet, 2),
    diet3 = is_level(Diet, 3))), d$Rat, stored = FALSE)
  d <- as.data.frame(datasets::Theoph)
  add_table("theoph", with(d, data.frame(conc, time = Time, time2 = Time^2)), d$Subject,
    stored = FALSE)
  d <- HSAUR3::BtheB
  months <- c(2, 3, 5, 8)
  long <- do.call(rbind, lapply(months, function(m) data.frame(
    bdi = d[[paste0("bdi.", m, "m")]], bdi_pre = d$bdi.pre, month = m,
    btheb = is_level(d$treatment, "BtheB"), drug = is_level(d$drug, "Yes"),
    long = is_level(d$length, ">6m"), patient = seq_len(nrow(d)))))
  add_table("btheb", long[names(long) != "patient"], long$patient, stored = FALSE)
  utils::data("cheese", package = "bayesm", envir = environment())
  add_table("cheese", with(cheese, data.frame(log_volume = log(VOLUME), log_price = log(PRICE),
    disp = DISP)), cheese$RETAILER, stored = FALSE)
}

nlme_tables <- function() {
  get_nlme <- function(name) as.data.frame(getExportedValue("nlme", name))
  d <- get_nlme("Oxboys")
  add_table("oxboys", with(d, data.frame(height, age, age2 = age^2)), d$Subject)
  d <- get_nlme("Rail");        add_table("rail", d["travel"], d$Rail)
  d <- get_nlme("Dialyzer")
  add_table("dialyzer", with(d, data.frame(rate, pressure, pressure2 = pressure^2,
    qb300 = is_level(QB, 300))), d$Subject)
  d <- get_nlme("Soybean");     add_table("soybean", d[c("weight", "Time")], d$Plot)
  d <- get_nlme("Ovary")
  add_table("ovary", with(d, data.frame(follicles, sine = round(sin(2 * pi * Time), 12),
    cosine = round(cos(2 * pi * Time), 12))), d$Mare)
  d <- get_nlme("Oats");        add_table("oats", d[c("yield", "nitro")], d$Block)
  d <- get_nlme("Machines")
  add_table("machines", with(d, data.frame(score, b = is_level(Machine, "B"),
    c = is_level(Machine, "C"))), d$Worker)
  d <- get_nlme("Pixel")
  add_table("pixel", with(d, data.frame(pixel, day, day2 = day^2)), d$Dog)
  d <- get_nlme("RatPupWeight")
  add_table("rat_pup", with(d, data.frame(weight, female = is_level(sex, "Female"), Lsize,
    low = is_level(Treatment, "Low"), high = is_level(Treatment, "High"))), d$Litter)
  d <- get_nlme("Earthquake");  add_table("earthquake", d[c("accel", "distance")], d$Quake)
  d <- get_nlme("Gasoline");    add_table("gasoline", d[c("yield", "endpoint")], d$Sample)
  d <- get_nlme("Glucose");     add_table("glucose", d[c("conc", "Time")], d$Subject)
  d <- get_nlme("IGF");         add_table("igf", d[c("conc", "age")], d$Lot)
  d <- get_nlme("Milk");        add_table("milk", d[c("protein", "Time")], d$Cow)
  d <- get_nlme("Spruce");      add_table("spruce", d[c("logSize", "days")], d$Tree)
  d <- get_nlme("Fatigue");     add_table("fatigue", d[c("relLength", "cycles")], d$Path)
  d <- get_nlme("PBG");         add_table("pbg", d[c("deltaBP", "dose")], d$Rabbit)
  d <- get_nlme("Wafer")
  add_table("wafer", with(d, data.frame(current, voltage, voltage2 = round(voltage^2, 6))), d$Wafer)
  d <- get_nlme("Quinidine");   add_table("quinidine", d[c("conc", "time")], d$Subject)
  d <- get_nlme("Cefamandole"); add_table("cefamandole", d[c("conc", "Time")], d$Subject)
  d <- get_nlme("bdf")
  add_table("bdf", with(d, data.frame(language = langPOST, iq = IQ.verb)), d$schoolNR)
}

other_tables <- function() {
  d <- datasets::Loblolly;    add_table("loblolly", d[c("height", "age")], d$Seed)
  d <- datasets::ChickWeight
  add_table("chick_weight", with(d, data.frame(weight, Time, Time2 = Time^2)), d$Chick)
  d <- datasets::Orange;      add_table("orange", d[c("circumference", "age")], d$Tree)
  d <- datasets::CO2;         add_table("co2", d[c("uptake", "conc")], d$Plant)
  d <- datasets::Indometh;    add_table("indometh", d[c("conc", "time")], d$Subject)
  d <- datasets::DNase;       add_table("dnase", d[c("density", "conc")], d$Run)
  add_table("dyestuff", Dyestuff["Yield"], Dyestuff$Batch)
  add_table("dyestuff2", Dyestuff2["Yield"], Dyestuff2$Batch)
  add_table("penicillin", Penicillin["diameter"], Penicillin$plate)
  add_table("pastes", Pastes["strength"], Pastes$sample)
  add_table("cake", cake[c("angle", "temp")], cake$replicate)
  add_table("arabidopsis", with(Arabidopsis, data.frame(fruits = round(log1p(total.fruits), 8),
    nutrient)), Arabidopsis$popu)
  add_table("cbpp", with(cbpp, data.frame(rate = round(incidence / size, 8),
    p2 = is_level(period, 2), p3 = is_level(period, 3), p4 = is_level(period, 4))), cbpp$herd)
  add_table("grouse", with(grouseticks, data.frame(ticks = round(log1p(TICKS), 8),
    height = HEIGHT)), grouseticks$BROOD)
  d <- mlmRev::Exam;          add_table("exam", d[c("normexam", "standLRT")], d$school)
  d <- mlmRev::ScotsSec;      add_table("scots", d[c("attain", "verbal")], d$primary)
  d <- mlmRev::Gcsemv;        add_table("gcsemv", d[c("course", "written")], d$school)
  d <- mlmRev::egsingle
  add_table("egsingle", with(d, data.frame(math, year)), d$childid)
  d <- mlmRev::Early;         add_table("early", d[c("cog", "age")], d$id)
  d <- mlmRev::Chem97[as.integer(mlmRev::Chem97$lea) <= 20, ]
  add_table("chem97", d[c("score", "gcsecnt")], d$school)
  utils::data("Grunfeld", package = "AER", envir = environment())
  add_table("grunfeld", Grunfeld[c("invest", "value", "capital")], Grunfeld$firm)
  utils::data("Cigar", package = "plm", envir = environment())
  add_table("cigar", with(Cigar, data.frame(sales, year = 1900 + year)), Cigar$state)
  d <- carData::Blackmore;    add_table("blackmore", d[c("exercise", "age")], d$subject)
}

# --- simulated, awkward designs ------------------------------------------------------------------

# One response: intercept 10, the slope, and group deviations with these SDs and correlation.
# Ten significant digits are kept, so that the stored numbers are the ones that were fitted.
simulate <- function(seed, sizes, x, sd0, sd1, rho = 0, sigma = 1, noise = rnorm, slope = 2) {
  set.seed(seed)
  g <- rep(seq_along(sizes), sizes)
  n <- length(g)
  x <- signif(x(n, g), 10)
  z0 <- rnorm(length(sizes))
  z1 <- rho * z0 + sqrt(1 - rho^2) * rnorm(length(sizes))
  y <- 10 + sd0 * z0[g] + (slope + sd1 * z1[g]) * x + sigma * noise(n)
  data.frame(y = signif(y, 10), x = x, g = g)
}

unit <- function(n, g) rnorm(n)

simulated_tables <- function() {
  keep <- function(name, d) add_table(name, d[names(d) != "g"], d$g)
  keep("two_groups", simulate(1, c(12, 12), unit, 2, 1))
  keep("three_groups", simulate(2, rep(10, 3), unit, 2, 0.5, 0.3))
  keep("five_groups", simulate(3, rep(8, 5), unit, 1, 0.5, -0.4))
  keep("tiny_groups", simulate(4, c(rep(1:3, 20), rep(4, 10)), unit, 1, 0.7, 0.3))
  keep("singletons", simulate(5, c(rep(1, 40), rep(4, 20)), unit, 1, 0))
  keep("unbalanced", simulate(6, c(300, 150, 80, 40, 20, 10, 5, 3, 2, 2, 1, 1), unit, 1, 0.5, 0.5))
  keep("no_slope_variance", simulate(7, rep(10, 20), unit, 1, 0))
  keep("no_variance", simulate(8, rep(6, 15), unit, 0, 0))
  keep("correlation_plus", simulate(9, rep(10, 15), unit, 1, 0.5, 1))
  keep("correlation_minus", simulate(10, rep(10, 15), unit, 1, 0.5, -1))
  keep("dollars", simulate(11, rep(12, 20), function(n, g) runif(n, 2e4, 1.5e5), 20, 3e-4, 0.2, 15))
  keep("years", simulate(12, rep(16, 18), function(n, g) sample(1990:2020, n, TRUE), 4, 0.3, 0, 3))
  keep("milliseconds", simulate(13, rep(10, 25), function(n, g) runif(n, 2e5, 9e5), 30, 1e-4, 0,
    20))
  keep("timestamps", simulate(14, rep(10, 12), function(n, g) 1.7e12 + round(runif(n, 0, 1e9)),
    1, 2e-9, 0, 1, slope = 5e-9))
  small <- simulate(15, rep(8, 20), unit, 1, 0.5, 0.3)
  keep("outcome_1e-6", transform(small, y = signif(y * 1e-6, 10)))
  big <- simulate(16, rep(8, 20), unit, 1, 0.5, -0.3)
  keep("outcome_1e9", transform(big, y = signif(y * 1e9, 10)))
  offset <- simulate(17, rep(8, 20), unit, 1, 0.5)
  keep("outcome_offset", transform(offset, y = round(y, 4) + 1e6))
  twins <- simulate(18, rep(10, 20), unit, 1, 0.5)
  keep("near_collinear", transform(twins, x2 = signif(x + 1e-4 * rnorm(200), 10)))
  level2 <- simulate(19, rep(8, 40), unit, 1, 0)
  level2$w <- signif(rnorm(40), 10)[level2$g]
  keep("group_predictor", level2)
  keep("huge_icc", simulate(20, rep(6, 20), unit, 100, 20, 0.5, 0.1))
  keep("near_perfect", simulate(21, rep(6, 20), unit, 1, 0.5, 0, 1e-4))
  keep("heavy_tails", simulate(22, rep(10, 30), unit, 1, 0.5, 0.3, 1, function(n) rt(n, 2)))
  cubic <- simulate(23, rep(8, 40), function(n, g) rep(0:7, length.out = n), 2, 0.5, 0.2)
  keep("cubic", transform(cubic, x2 = x^2, x3 = x^3,
    y = signif(y + 0.1 * rnorm(40)[g] * x^2 + 0.01 * rnorm(40)[g] * x^3, 10)))
  keep("many_groups", simulate(24, rep(3, 1000), unit, 1, 0.5, 0.3))
  balanced <- simulate(25, rep(6, 12), unit, 0, 0)
  keep("too_alike", transform(balanced, y = signif(y - ave(y, g) + 10, 10)))
  outlier <- simulate(26, rep(8, 12), unit, 0.5, 0.2)
  keep("outlying_group", transform(outlier, y = y + 50 * (g == 3)))
  rare <- simulate(27, rep(15, 20), function(n, g) as.numeric(g <= 6 & runif(n) < 0.4), 1, 1, 0.3)
  keep("rare_treatment", rare)
}

# --- cases -------------------------------------------------------------------------------------

cases <- list()

# x and z name columns of the table; "1" is the intercept and "a:b" a product.
add_case <- function(name, table, y, x, z, reml = TRUE)
  cases[[length(cases) + 1]] <<- list(name = name, table = table, y = y, x = I(x), z = I(z),
                                      reml = reml)

course_cases <- function() {
  add_case("hsb_null", "hsb", "mathach", "1", "1")
  add_case("hsb_means", "hsb", "mathach", c("1", "meanses"), "1")
  add_case("hsb_cses", "hsb", "mathach", c("1", "cses"), c("1", "cses"))
  add_case("hsb_ses_ml", "hsb", "mathach", c("1", "ses"), c("1", "ses"), FALSE)
  add_case("hsb_full", "hsb", "mathach",
    c("1", "meanses", "catholic", "cses", "meanses:cses", "catholic:cses"), c("1", "cses"))
  add_case("sleepstudy", "sleepstudy", "reaction", c("1", "days"), c("1", "days"))
  add_case("sleepstudy_ml", "sleepstudy", "reaction", c("1", "days"), c("1", "days"), FALSE)
  add_case("sleepstudy_intercept_ml", "sleepstudy", "reaction", c("1", "days"), "1", FALSE)
  add_case("sleepstudy_slope_only", "sleepstudy", "reaction", c("1", "days"), "days")
  add_case("sleepstudy_quadratic", "sleepstudy", "reaction", c("1", "days", "days2"),
    c("1", "days", "days2"))
  add_case("article", "article", "math_score", c("1", "app_hours"), c("1", "app_hours"))
  add_case("article_intercept", "article", "math_score", c("1", "app_hours"), "1")
  add_case("orthodont", "orthodont", "distance", c("1", "age"), c("1", "age"))
  add_case("orthodont_age11", "orthodont", "distance", c("1", "age11"), c("1", "age11"))
  add_case("orthodont_sex_ml", "orthodont", "distance",
    c("1", "age11", "female", "age11:female"), c("1", "age11"), FALSE)
  add_case("orthodont_quadratic", "orthodont", "distance", c("1", "age11", "age2"),
    c("1", "age11", "age2"))
  add_case("bodyweight", "bodyweight", "weight", c("1", "time"), c("1", "time"))
  add_case("bodyweight_diet", "bodyweight", "weight",
    c("1", "time", "diet2", "diet3", "time:diet2", "time:diet3"), c("1", "time"))
  add_case("theoph", "theoph", "conc", c("1", "time"), c("1", "time"))
  add_case("theoph_quadratic", "theoph", "conc", c("1", "time", "time2"), c("1", "time", "time2"))
  btheb <- c("1", "bdi_pre", "month", "btheb", "drug", "long")
  add_case("btheb_intercept", "btheb", "bdi", btheb, "1", FALSE)
  add_case("btheb_slope", "btheb", "bdi", btheb, c("1", "month"))
  add_case("cheese", "cheese", "log_volume", c("1", "log_price", "disp"), c("1", "log_price"))
  add_case("cheese_two_slopes", "cheese", "log_volume", c("1", "log_price", "disp"),
    c("1", "log_price", "disp"))
}

textbook_cases <- function() {
  slope <- function(table, y, x, reml = TRUE)
    add_case(table, table, y, c("1", x), c("1", x), reml)
  slope("oxboys", "height", "age")
  slope("soybean", "weight", "Time")
  slope("oats", "yield", "nitro")
  slope("earthquake", "accel", "distance")
  slope("gasoline", "yield", "endpoint")
  slope("glucose", "conc", "Time")
  slope("igf", "conc", "age")
  slope("milk", "protein", "Time")
  slope("spruce", "logSize", "days")
  slope("fatigue", "relLength", "cycles")
  slope("pbg", "deltaBP", "dose")
  slope("quinidine", "conc", "time")
  slope("cefamandole", "conc", "Time")
  slope("bdf", "language", "iq")
  slope("loblolly", "height", "age")
  slope("chick_weight", "weight", "Time")
  slope("orange", "circumference", "age")
  slope("co2", "uptake", "conc")
  slope("indometh", "conc", "time", FALSE)
  slope("dnase", "density", "conc")
  slope("cake", "angle", "temp")
  slope("arabidopsis", "fruits", "nutrient")
  slope("grouse", "ticks", "height")
  slope("exam", "normexam", "standLRT", FALSE)
  slope("scots", "attain", "verbal")
  slope("gcsemv", "course", "written")
  slope("egsingle", "math", "year")
  slope("early", "cog", "age")
  slope("chem97", "score", "gcsecnt")
  slope("cigar", "sales", "year")
  slope("blackmore", "exercise", "age")
  add_case("grunfeld", "grunfeld", "invest", c("1", "value", "capital"), c("1", "value"))
  add_case("rat_pup", "rat_pup", "weight", c("1", "female", "Lsize", "low", "high"), "1")
  add_case("cbpp", "cbpp", "rate", c("1", "p2", "p3", "p4"), "1")
  for (one in list(c("rail", "travel"), c("dyestuff", "Yield"), c("dyestuff2", "Yield"),
                   c("penicillin", "diameter"), c("pastes", "strength")))
    add_case(one[1], one[1], one[2], "1", "1")
  three <- function(name, table, y, x, reml = TRUE) add_case(name, table, y, x, x, reml)
  three("oxboys_quadratic", "oxboys", "height", c("1", "age", "age2"))
  three("pixel", "pixel", "pixel", c("1", "day", "day2"))
  three("machines", "machines", "score", c("1", "b", "c"))
  three("wafer", "wafer", "current", c("1", "voltage", "voltage2"))
  three("chick_weight_quadratic", "chick_weight", "weight", c("1", "Time", "Time2"), FALSE)
  three("ovary", "ovary", "follicles", c("1", "sine", "cosine"))
  add_case("dialyzer", "dialyzer", "rate", c("1", "pressure", "pressure2", "qb300"),
    c("1", "pressure", "pressure2"))
}

simulated_cases <- function() {
  slope <- function(table, reml = TRUE) add_case(table, table, "y", c("1", "x"), c("1", "x"), reml)
  for (table in c("two_groups", "three_groups", "five_groups", "tiny_groups", "unbalanced",
                  "no_slope_variance", "no_variance", "correlation_plus", "correlation_minus",
                  "dollars", "years", "milliseconds", "timestamps", "outcome_1e-6", "outcome_1e9",
                  "outcome_offset", "huge_icc", "near_perfect", "heavy_tails", "many_groups",
                  "outlying_group", "rare_treatment"))
    slope(table)
  add_case("years_ml", "years", "y", c("1", "x"), c("1", "x"), FALSE)
  add_case("singletons", "singletons", "y", c("1", "x"), "1")
  add_case("too_alike", "too_alike", "y", "1", "1")
  add_case("near_collinear", "near_collinear", "y", c("1", "x", "x2"), c("1", "x"))
  add_case("group_predictor", "group_predictor", "y", c("1", "x", "w"), "1")
  add_case("group_predictor_slope", "group_predictor", "y", c("1", "x", "w"), c("1", "w"))
  add_case("cubic", "cubic", "y", c("1", "x", "x2", "x3"), c("1", "x", "x2", "x3"))
}

# --- fitting -----------------------------------------------------------------------------------

design <- function(frame, terms) {
  column <- function(term) {
    if (term == "1") return(rep(1, nrow(frame)))
    Reduce(`*`, lapply(strsplit(term, ":")[[1]], function(part) frame[[part]]))
  }
  matrix(vapply(terms, column, numeric(nrow(frame))), nrow(frame))
}

formula_of <- function(case) {
  right <- function(terms) {
    start <- if ("1" %in% terms) "1" else "0"
    paste(c(start, setdiff(terms, "1")), collapse = " + ")
  }
  sprintf("%s ~ %s + (%s | g)", case$y, right(case$x), right(case$z))
}

control <- function(optimizer, opt = list()) {
  lmerControl(optimizer = optimizer, optCtrl = opt, calc.derivs = FALSE,
    restart_edge = TRUE, boundary.tol = 1e-7,
    check.nobs.vs.rankZ = "ignore", check.nobs.vs.nlev = "ignore", check.nobs.vs.nRE = "ignore",
    check.nlev.gtreq.5 = "ignore", check.nlev.gtr.1 = "ignore", check.scaleX = "ignore",
    check.rankX = "ignore")
}

optimizers <- list(
  bobyqa = control("bobyqa", list(rhoend = 1e-10, maxfun = 1e5)),
  Nelder_Mead = control("Nelder_Mead", list(FtolAbs = 1e-10, FtolRel = 1e-15, XtolRel = 1e-10,
                                            maxfun = 1e5)),
  nloptwrap = control("nloptwrap", list(algorithm = "NLOPT_LN_BOBYQA", xtol_abs = 1e-10,
                                        ftol_abs = 1e-10, maxeval = 1e5)),
  nlminb = control("optimx", list(method = "nlminb", rel.tol = 1e-14, x.tol = 1e-12,
                                  eval.max = 5000, iter.max = 5000)))

quietly <- function(expr) tryCatch({
  sink(nullfile())
  on.exit(sink())
  suppressMessages(suppressWarnings(expr))
}, error = function(e) NULL)

criterion_of <- function(fit, reml) if (reml) unname(REMLcrit(fit)) else -2 * c(logLik(fit))

# Columns of `m` turned into orthogonal columns of mean square 1: m %*% back.
orthogonal <- function(m) {
  r <- qr.R(qr(m, tol = 1e-14))
  back <- sqrt(nrow(m)) * backsolve(r, diag(ncol(m)))
  list(m = m %*% back, back = back)
}

# The same model in units an optimiser likes, and what brings its results back.
rescale <- function(case, frame) {
  y <- frame[[case$y]]
  x <- orthogonal(design(frame, case$x))
  z <- orthogonal(design(frame, case$z))
  ols <- qr.coef(qr(x$m, tol = 1e-14), y)
  left <- y - drop(x$m %*% ols)
  unit <- sqrt(mean(left^2))
  log_det <- if (case$reml) sum(log(abs(diag(x$back)))) else 0
  df <- length(y) - case$reml * ncol(x$m)
  list(data = list(y = left / unit, x = x$m, z = z$m, g = factor(frame$g)), unit = unit, ols = ols,
       x_back = x$back, z_back = z$back, shift = 2 * df * log(unit) - 2 * log_det)
}

starts <- function(q) {
  shape <- function(diagonal, below) {
    m <- matrix(below, q, q)
    diag(m) <- diagonal
    m[lower.tri(m, TRUE)]
  }
  tries <- list(shape(1, 0), shape(0.1, 0), shape(5, 0))
  if (q > 1) tries <- c(tries, list(shape(0.5, 0.4), shape(0.5, -0.4)))
  tries
}

# Newton steps on lme4's own criterion, with the parameters at a bound held there.
polish <- function(devfun, theta, lower) {
  value <- devfun(theta)
  for (step in 1:3) {
    free <- which(theta > lower + 1e-6)
    if (!length(free)) break
    along <- function(t) {
      full <- replace(theta, free, t)
      full[full < lower] <- 0
      devfun(full)
    }
    args <- list(r = 4, d = 1e-3)
    g <- numDeriv::grad(along, theta[free], method.args = args)
    h <- numDeriv::hessian(along, theta[free], method.args = args)
    e <- eigen((h + t(h)) / 2, symmetric = TRUE)
    keep <- e$values > 1e-6 * max(e$values, 1e-300)
    move <- e$vectors[, keep, drop = FALSE] %*%
      (crossprod(e$vectors[, keep, drop = FALSE], g) / e$values[keep])
    next_theta <- replace(theta, free, pmax(theta[free] - drop(move), lower[free]))
    next_value <- devfun(next_theta)
    if (!is.finite(next_value) || next_value > value) break
    theta <- next_theta
    value <- next_value
  }
  snapped <- replace(theta, abs(theta) < 1e-5, 0)
  if (devfun(snapped) <= value + 1e-10) snapped else theta
}

fit_default <- function(case, frame) {
  fit <- quietly(lmer(stats::as.formula(formula_of(case)), frame, REML = case$reml))
  if (is.null(fit)) NULL else criterion_of(fit, case$reml)
}

raw_formula <- y ~ 0 + x + (0 + z | g)

fit_best <- function(case, frame) {
  scaled <- rescale(case, frame)
  raw <- list(y = frame[[case$y]], x = design(frame, case$x), z = design(frame, case$z),
              g = scaled$data$g)
  best <- list(criterion = Inf)
  consider <- function(fit, where, name, shift) {
    if (is.null(fit)) return()
    value <- criterion_of(fit, case$reml) + shift
    # A later try must be better by more than rounding, so that the winner is stable.
    if (is.finite(value) && value < best$criterion - 1e-7)
      best <<- list(criterion = value, theta = getME(fit, "theta"), winner = paste(name, where))
  }
  for (name in names(optimizers)) {
    for (start in starts(length(case$z)))
      consider(quietly(lmer(raw_formula, scaled$data, case$reml, optimizers[[name]],
                            start = start)), "scaled", name, scaled$shift)
  }
  theta_scaled <- best$theta
  for (name in names(optimizers))
    consider(quietly(lmer(raw_formula, raw, case$reml, optimizers[[name]])), "raw", name, 0)
  if (grepl("raw", best$winner)) {
    lambda <- matrix(0, length(case$z), length(case$z))
    lambda[lower.tri(lambda, TRUE)] <- best$theta
    cov <- solve(scaled$z_back, lambda) # the relative factor in the scaled columns
    theta_scaled <- t(qr.R(qr(t(cov))))
    theta_scaled <- theta_scaled %*% diag(sign(diag(theta_scaled)), nrow(theta_scaled))
    theta_scaled <- theta_scaled[lower.tri(theta_scaled, TRUE)]
  }
  devfun <- lmer(raw_formula, scaled$data, case$reml, optimizers$bobyqa, devFunOnly = TRUE)
  theta <- polish(devfun, theta_scaled, environment(devfun)$lower)
  devfun(theta)
  parts <- lFormula(raw_formula, scaled$data, case$reml, control = optimizers$bobyqa)
  optimum <- list(par = theta, fval = devfun(theta), conv = 0)
  fit <- mkMerMod(environment(devfun), optimum, parts$reTrms, parts$fr)
  list(fit = fit, scaled = scaled, winner = best$winner)
}

reference <- function(case) {
  frame <- tables[[case$table]]$frame
  found <- fit_best(case, frame)
  fit <- found$fit
  s <- found$scaled
  q <- length(case$z)
  cov_beta <- s$unit^2 * s$x_back %*% as.matrix(vcov(fit)) %*% t(s$x_back)
  cov_re <- s$unit^2 * s$z_back %*% matrix(VarCorr(fit)$g, q) %*% t(s$z_back)
  modes <- ranef(fit, condVar = TRUE)$g
  variances <- attr(modes, "postVar")
  labels <- sort(rownames(modes), method = "radix")
  if (is.numeric(frame$g)) labels <- labels[order(as.numeric(labels))]
  shown <- utils::head(labels, MAX_GROUPS)
  rows <- match(shown, rownames(modes))
  blups <- as.matrix(modes)[rows, , drop = FALSE] %*% t(s$z_back) * s$unit
  sds <- t(vapply(rows, function(j) sqrt(diag(
    s$z_back %*% matrix(variances[, , j], q) %*% t(s$z_back))) * s$unit, numeric(q)))
  default <- fit_default(case, frame)
  criterion <- criterion_of(fit, case$reml) + s$shift
  gap <- if (is.null(default)) NA else default - criterion
  cat(sprintf("%-26s %16.6f  default %+.2e  singular %-5s %s\n", case$name, criterion, gap,
              isSingular(fit, 1e-4), found$winner))
  c(case, list(
    formula = formula_of(case), n = nrow(frame), groups = length(labels),
    beta = I(drop(s$x_back %*% (s$ols + s$unit * fixef(fit)))), se = I(sqrt(diag(cov_beta))),
    cov_re = cov_re, scale = unname(s$unit * sigma(fit))^2, criterion = unname(criterion),
    default_criterion = default, singular = isSingular(fit, 1e-4), winner = found$winner,
    labels = I(as.character(shown)), blups = unname(blups), sds = if (q == 1) t(sds) else sds))
}

write_text <- function(path, text) {
  file <- if (endsWith(path, ".gz")) gzfile(path, "wb", compression = 9) else file(path, "wb")
  on.exit(close(file))
  writeBin(charToRaw(paste0(text, "\n")), file)
}

course_tables()
nlme_tables()
other_tables()
simulated_tables()
course_cases()
textbook_cases()
simulated_cases()
fits <- lapply(cases, reference)
fits <- fits[order(vapply(cases, `[[`, "", "name"), method = "radix")]
versions <- list(R = paste(R.version$major, R.version$minor, sep = "."),
                 lme4 = as.character(packageVersion("lme4")))
write_text(file.path(here, "lme4.json"), paste0(
  '{"cases":[\n', paste(vapply(fits, json, ""), collapse = ",\n"), '\n],"versions":',
  json(versions), "}"))
stored <- Filter(function(t) t$stored, tables)
write_text(file.path(here, "battery.json.gz"), json(lapply(stored, function(t) as.list(t$frame))))
