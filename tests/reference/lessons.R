# Fits the models that lessons 08 to 15 show on real data, with lme4, and writes lessons.json.
#
#   Rscript tests/reference/lessons.R
#
# Takes a few minutes. Needs R with lme4, nlme, optimx, numDeriv, minqa, nloptr. The method is
# that of make_reference.R, whose functions are used here; README.md in this folder describes both.

# Everything in make_reference.R up to the line where its own work begins.
folder <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE)))
script <- parse(file.path(folder, "make_reference.R"))
begin <- match("course_tables()", vapply(script, deparse1, ""))
source(exprs = script[seq_len(begin - 1)])
suppressPackageStartupMessages(library(nlme, exclude = "lmList")) # `update` wants it attached

# The lessons' models are easier than the battery's: two starts for each optimiser will do.
all_starts <- starts
starts <- function(q) all_starts(q)[1:2]

# --- tables, prepared as in the lessons ----------------------------------------------------------

read_data <- function(name, group) {
  text <- stats::setNames("character", group)
  read.csv(file.path(here, "..", "..", "data", paste0(name, ".csv")), colClasses = text)
}

data_of <- list()

hsb_tables <- function() {
  d <- read_data("hsb", "school")
  d$cses <- d$ses - d$meanses
  d$cses_100 <- 100 * d$cses
  d$catholic <- as.numeric(d$sector == "catholic")
  half <- strsplit(paste(readLines(file.path(here, "learning_half.txt")), collapse = ""), "")[[1]]
  data_of$hsb <<- d
  data_of$hsb_below_top <<- d[d$mathach < max(d$mathach), ]
  data_of$hsb_half <<- d[half == "1", ]
}

sleep_tables <- function() {
  d <- read_data("sleepstudy", "subject")
  data_of$sleep_added <<- rbind(d, data.frame(subject = c("A", "B", "B"), days = c(5, 0, 1),
                                              reaction = c(420, 290, 245)))
  d$day <- d$days - 2
  d$day_9 <- d$days - 9
  d$x <- d$days - 4.5
  d$x2 <- d$x^2
  d$short_nights <- pmax(d$days - 2, 0)
  d$speed <- 1000 / d$reaction
  d$hours <- 24 * d$days
  d$seconds <- 86400 * d$days
  d$year <- 2003 + d$days / 365.25
  d$unix <- 1050000000 + 86400 * d$days
  data_of$sleep <<- d
  data_of$sleep_late <<- d[d$days >= 2, ]
  data_of$sleep_no_332 <<- d[d$subject != "332", ]
  data_of$sleep_calm <<- d[!d$subject %in% c("308", "332"), ]
}

btheb_tables <- function() {
  wide <- read_data("btheb", "patient")
  wide$pre_c <- wide$bdi_pre - mean(wide$bdi_pre)
  wide$beat <- as.numeric(wide$treatment == "BtheB")
  # By code points, as Python sorts, whatever the locale.
  for (name in c("drug", "length", "treatment"))
    wide[[name]] <- factor(wide[[name]], sort(unique(wide[[name]]), method = "radix"))
  long <- do.call(rbind, lapply(c(2, 3, 5, 8), function(m) data.frame(
    wide[c("patient", "drug", "length", "treatment", "bdi_pre", "pre_c", "beat")],
    month = m, bdi = wide[[paste0("bdi_", m, "m")]])))
  long$since_8 <- long$month - 8
  data_of$btheb <<- long[!is.na(long$bdi), ]
}

BLOCKS <- seq(0, 32, 4) # first weeks of lesson 11's blocks of twenty

cheese_tables <- function() {
  d <- read_data("cheese", "retailer")
  d$log_volume <- log(d$volume)
  d$log_price <- log(d$price)
  d$log_price_c <- d$log_price - mean(d$log_price)
  d$week <- ave(d$volume, d$retailer, FUN = seq_along) - 1
  data_of$cheese <<- d
  odd <- d$retailer == "BOSTON - STAR MARKET" & d$week == 23
  for (start in BLOCKS) {
    block <- d$week >= start & d$week < start + 20
    name <- paste0("cheese_block_", start)
    data_of[[name]] <<- d[block, ]
    if (any(block & odd)) data_of[[paste0(name, "_less_1")]] <<- d[block & !odd, ]
  }
}

small_tables <- function() {
  data_of$article <<- read_data("article", "school_id")
  data_of$orthodont <<- read_data("orthodont", "subject")
  d <- read_data("bodyweight", "rat")
  d$diet <- as.character(d$diet)
  data_of$bodyweight <<- d
}

# --- models: fixed effects as in the lesson, groups, what varies from group to group -------------

# What the lessons' formulas call; R takes the dot for a part of the name.
np.log <- log
C <- function(x) factor(x)

models <- list()

show_model <- function(name, data, fixed, groups, re = "1", reml = TRUE)
  models[[length(models) + 1]] <<- list(name = name, data = data, fixed = fixed, groups = groups,
                                        re = re, reml = reml)

both_ways <- function(name, ...) {
  show_model(name, ...)
  show_model(paste0(name, "_ml"), ..., reml = FALSE)
}

hsb_models <- function() {
  hsb <- function(name, fixed, re = "1", data = "hsb", show = show_model)
    show(name, data, paste("mathach ~", fixed), "school", re)
  hsb("hsb_null", "1", show = both_ways)
  hsb("hsb_means", "meanses", show = both_ways)
  hsb("hsb_centred", "cses + meanses")
  hsb("hsb_mundlak", "ses + meanses")
  hsb("hsb_blend", "ses")
  hsb("hsb_slopes", "cses", "cses", show = both_ways)
  hsb("hsb_slopes_100", "cses_100", "cses_100")
  hsb("hsb_centred_slopes", "cses + meanses", "cses")
  hsb("hsb_mundlak_slopes", "ses + meanses", "ses")
  terms <- "cses + meanses + catholic + meanses:cses + catholic:cses"
  hsb("hsb_full", terms, "cses")
  hsb("hsb_full_sector", "meanses * cses + sector * cses", "cses", show = both_ways)
  hsb("hsb_parallel", terms)
  hsb("hsb_below_top", terms, "cses", "hsb_below_top")
  hsb("hsb_half", "cses", "cses", "hsb_half")
}

sleep_models <- function() {
  sleep <- function(name, fixed, re, data = "sleep", reml = TRUE, y = "reaction")
    show_model(name, data, paste(y, "~", fixed), "subject", re, reml)
  sleep("sleep", "days", "days")
  sleep("sleep_ml", "days", "days", reml = FALSE)
  sleep("sleep_intercepts", "days", "1")
  sleep("sleep_intercepts_ml", "days", "1", reml = FALSE)
  sleep("sleep_from_2", "day", "day")
  sleep("sleep_from_9", "day_9", "day_9")
  sleep("sleep_added", "days", "days", "sleep_added")
  sleep("sleep_speed", "days", "days", y = "speed")
  sleep("sleep_stick", "short_nights", "short_nights")
  sleep("sleep_stick_ml", "short_nights", "short_nights", reml = FALSE)
  sleep("sleep_late", "short_nights", "short_nights", "sleep_late")
  sleep("sleep_late_ml", "short_nights", "short_nights", "sleep_late", FALSE)
  sleep("sleep_late_days", "days", "days", "sleep_late")
  sleep("sleep_no_332", "days", "days", "sleep_no_332")
  sleep("sleep_no_332_from_2", "day", "day", "sleep_no_332")
  sleep("sleep_calm", "days", "days", "sleep_calm")
  sleep("sleep_straight", "x", "x")
  sleep("sleep_bent", "x + x2", "x")
  sleep("sleep_no_332_bent", "x + x2", "x", "sleep_no_332")
  for (data in c("sleep", "sleep_no_332", "sleep_calm")) {
    sleep(paste0(data, "_straight_ml"), "x", "x", data, FALSE)
    sleep(paste0(data, "_bent_ml"), "x + x2", "x", data, FALSE)
    sleep(paste0(data, "_each_bent_ml"), "x + x2", "x + x2", data, FALSE)
  }
  for (clock in c("hours", "seconds", "year", "unix"))
    sleep(paste0("sleep_", clock, "_ml"), clock, clock, reml = FALSE)
}

other_models <- function() {
  btheb <- function(name, fixed, re = "1", show = show_model)
    show(name, "btheb", paste("bdi ~", fixed), "patient", re)
  btheb("btheb", "pre_c + beat * since_8")
  btheb("btheb_by_visit", "pre_c + C(month) / beat")
  btheb("btheb_slopes", "pre_c + beat * since_8", "since_8")
  btheb("btheb_adjusted", "pre_c + beat * since_8 + drug + length")
  btheb("btheb_parallel", "bdi_pre + month + treatment + drug + length", show = both_ways)
  show_model("cheese_log", "cheese", "log_volume ~ log_price + disp", "retailer", "log_price")
  terms <- "np.log(volume) ~ np.log(price) + disp"
  both_ways("cheese", "cheese", terms, "retailer", "np.log(price)")
  both_ways("cheese_two", "cheese", terms, "retailer", "np.log(price) + disp")
  centred <- grep("^cheese", names(data_of), value = TRUE)
  for (data in centred)
    show_model(if (data == "cheese") "cheese_centred" else data, data,
      "log_volume ~ log_price_c + disp", "retailer", "log_price_c + disp")
  both_ways("article", "article", "math_score ~ app_hours", "school_id", "app_hours")
  both_ways("orthodont", "orthodont", "distance ~ age", "subject", "age")
  both_ways("bodyweight", "bodyweight", "weight ~ time", "rat", "time")
}

# --- fitting -------------------------------------------------------------------------------------

lme4_formula <- function(m, bar = "|") sprintf("%s + (%s %s %s)", m$fixed, m$re, bar, m$groups)

# make_reference.R wants columns of numbers: y, those of X, those of Z, and g.
as_columns <- function(m) {
  data <- data_of[[m$data]]
  parts <- lFormula(stats::as.formula(lme4_formula(m)), data, control = optimizers$bobyqa)
  x <- unname(parts$X[, , drop = FALSE])
  z <- stats::model.matrix(stats::as.formula(paste("~", m$re)), data)
  columns <- c(list(stats::model.response(parts$fr)), asplit(x, 2), asplit(z, 2))
  names(columns) <- c("y", paste0("x", seq_len(ncol(x))), paste0("z", seq_len(ncol(z))))
  frame <- as.data.frame(lapply(columns, as.vector))
  frame$g <- data[[m$groups]]
  list(frame = frame, fixed = I(colnames(parts$X)), random = I(colnames(z)))
}

KEEP <- c("n", "groups", "beta", "se", "cov_re", "scale", "criterion", "default_criterion",
          "singular", "winner", "labels", "blups")

fit_model <- function(m) {
  columns <- as_columns(m)
  tables[[m$name]] <<- list(frame = columns$frame)
  found <- reference(list(name = m$name, table = m$name, y = "y", reml = m$reml,
    x = paste0("x", seq_along(columns$fixed)), z = paste0("z", seq_along(columns$random))))
  c(m[c("name", "data", "reml")], found[KEEP], columns[c("fixed", "random")],
    formula = lme4_formula(m))
}

# A slope that varies independently of the intercept (lesson 15); `mixed.fit` has no such model.
fit_uncorrelated <- function(m) {
  formula <- stats::as.formula(lme4_formula(m, "||"))
  data <- data_of[[m$data]]
  fits <- lapply(optimizers, function(o) quietly(lmer(formula, data, m$reml, o)))
  values <- vapply(fits, criterion_of, 0, m$reml)
  best <- names(fits)[values < min(values) + 1e-7][1] # rounding decides no winner
  devfun <- lmer(formula, data, m$reml, optimizers$bobyqa, devFunOnly = TRUE)
  theta <- polish(devfun, getME(fits[[best]], "theta"), environment(devfun)$lower)
  parts <- lFormula(formula, data, m$reml, control = optimizers$bobyqa)
  fit <- mkMerMod(environment(devfun), list(par = theta, fval = devfun(theta), conv = 0),
                  parts$reTrms, parts$fr)
  list(name = m$name, data = m$data, reml = m$reml, formula = lme4_formula(m, "||"),
       fixed = I(names(fixef(fit))), beta = I(unname(fixef(fit))),
       se = I(unname(sqrt(diag(as.matrix(vcov(fit)))))),
       variances = I(unname(vapply(VarCorr(fit), c, 0))), scale = sigma(fit)^2,
       criterion = criterion_of(fit, m$reml), winner = best)
}

uncorrelated <- function() list(
  fit_uncorrelated(list(name = "sleep_uncorrelated", data = "sleep", fixed = "reaction ~ days",
                        re = "days", groups = "subject", reml = TRUE)),
  fit_uncorrelated(list(name = "bodyweight_uncorrelated", data = "bodyweight",
                        fixed = "weight ~ time * C(diet)", re = "time", groups = "rat",
                        reml = TRUE)))

# Errors that are neither independent nor alike (lesson 09), which lme4 does not know. nlme
# iterates less far than the fits above: six digits are kept.
other_errors <- function() {
  sleep <- data_of$sleep
  independent <- lme(reaction ~ days, sleep, ~ days | subject,
    control = lmeControl(opt = "optim", maxIter = 500, msMaxIter = 500, niterEM = 50))
  carried <- update(independent, correlation = corAR1(form = ~ days | subject))
  by_person <- update(independent, weights = varIdent(form = ~ 1 | subject))
  estimates <- function(fit, more = list()) {
    table <- summary(fit)$tTable
    more <- lapply(more, function(x) signif(unname(x), 6))
    c(list(fixed = I(rownames(table)), beta = I(signif(unname(table[, "Value"]), 6)),
           se = I(signif(unname(table[, "Std.Error"]), 6))), more)
  }
  spread <- function(fit) {
    shown <- VarCorr(fit)
    list(sd = as.numeric(shown[1:2, "StdDev"]), correlation = as.numeric(shown[2, "Corr"]),
         sd_residual = fit$sigma)
  }
  phi <- unname(coef(carried$modelStruct$corStruct, unconstrained = FALSE))
  D <- 2 * c(logLik(carried) - logLik(independent))
  ends <- intervals(carried)
  intercept_and_slope <- ends$reStruct$subject[c("sd((Intercept))", "cor((Intercept),days)"),
                                               c("lower", "upper")]
  list(sleep_ar1 = estimates(carried, c(spread(carried), list(
         phi = phi, D = D, phi_interval = unlist(ends$corStruct[, c("lower", "upper")]),
         sd_interval = unlist(intercept_and_slope[1, ]),
         correlation_interval = unlist(intercept_and_slope[2, ])))),
       sleep_sd_by_person = estimates(by_person, spread(by_person)[1:2]))
}

by_name <- function(fits) fits[order(vapply(fits, `[[`, "", "name"), method = "radix")]

lines_of <- function(fits) paste(vapply(by_name(fits), json, ""), collapse = ",\n")

cores <- if (.Platform$OS.type == "windows") 1 else 2
hsb_tables()
sleep_tables()
btheb_tables()
cheese_tables()
small_tables()
hsb_models()
sleep_models()
other_models()
cases <- parallel::mclapply(models, fit_model, mc.cores = cores)
versions <- lapply(c(lme4 = "lme4", nlme = "nlme"), function(p) as.character(packageVersion(p)))
versions$R <- paste(R.version$major, R.version$minor, sep = ".")
answers <- paste0('{"cases":[\n', lines_of(cases), '\n],\n"other_errors":', json(other_errors()),
  ',\n"uncorrelated":[\n', lines_of(uncorrelated()), '\n],\n"versions":', json(versions), "}")
write_text(file.path(here, "lessons.json"), answers) # at the end, or a stop would leave it empty
