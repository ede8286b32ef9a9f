# Writes the CSV files of this folder that come from R packages. Run it in this folder:
#
#     Rscript make_data.R
#
# It needs nlme, lme4, HSAUR3, bayesm and mlmRev; the versions used are named in README.md.
# article.csv is not made here: it is simulated, by one line of Python given in README.md.

options(warn = 2) # a coercion that loses something must stop the script, not pass by

# The fewest digits that give the same number back, so that nothing is lost or invented.
shortest <- function(x) {
  text <- rep(NA_character_, length(x))
  for (digits in 15:17) {
    todo <- which(!is.na(x) & (is.na(text) | as.numeric(text) != x))
    text[todo] <- vapply(x[todo], format, "", digits = digits, scientific = FALSE)
  }
  text
}

# Text in quotes, numbers bare, missing values empty; UTF-8 and LF on every system.
write_table <- function(name, table) {
  cells <- lapply(table, function(column) {
    if (is.character(column)) dQuote(column, FALSE) else shortest(column)
  })
  cells <- lapply(cells, function(column) ifelse(is.na(column), "", column))
  lines <- c(paste(names(table), collapse = ","), do.call(paste, c(cells, sep = ",")))
  file <- file(paste0(name, ".csv"), open = "wb", encoding = "UTF-8")
  on.exit(close(file))
  writeLines(enc2utf8(lines), file, sep = "\n", useBytes = TRUE)
}

text <- as.character
plain <- function(dataset) as.data.frame(dataset) # drops nlme's grouping, keeps the rows' order

# High School & Beyond: each student's row with the columns of his or her school.
student <- plain(nlme::MathAchieve)
place <- match(text(student$School), text(nlme::MathAchSchool$School))
school <- plain(nlme::MathAchSchool)[place, ]
stopifnot(!anyNA(place), student$MEANSES == school$MEANSES)
write_table("hsb", data.frame(
  school = text(student$School),
  minority = as.integer(student$Minority == "Yes"),
  female = as.integer(student$Sex == "Female"),
  ses = student$SES,
  meanses = school$MEANSES,
  mathach = student$MathAch,
  sector = tolower(text(school$Sector)),
  size = school$Size,
  pracad = school$PRACAD,
  disclim = school$DISCLIM,
  himinty = as.integer(text(school$HIMINTY))
))

sleepstudy <- plain(lme4::sleepstudy)
write_table("sleepstudy", data.frame(
  subject = text(sleepstudy$Subject),
  days = sleepstudy$Days,
  reaction = sleepstudy$Reaction
))

orthodont <- plain(nlme::Orthodont)
write_table("orthodont", data.frame(
  subject = text(orthodont$Subject),
  sex = tolower(text(orthodont$Sex)),
  age = orthodont$age,
  distance = orthodont$distance
))

bodyweight <- plain(nlme::BodyWeight)
write_table("bodyweight", data.frame(
  rat = text(bodyweight$Rat),
  diet = text(bodyweight$Diet),
  time = bodyweight$Time,
  weight = bodyweight$weight
))

theoph <- plain(datasets::Theoph)
write_table("theoph", data.frame(
  subject = text(theoph$Subject),
  weight = theoph$Wt,
  dose = theoph$Dose,
  time = theoph$Time,
  conc = theoph$conc
))

data("BtheB", package = "HSAUR3")
write_table("btheb", data.frame(
  patient = rownames(BtheB),
  drug = text(BtheB$drug),
  length = text(BtheB$length),
  treatment = text(BtheB$treatment),
  bdi_pre = BtheB$bdi.pre,
  bdi_2m = BtheB$bdi.2m,
  bdi_3m = BtheB$bdi.3m,
  bdi_5m = BtheB$bdi.5m,
  bdi_8m = BtheB$bdi.8m
))

data("cheese", package = "bayesm")
write_table("cheese", data.frame(
  retailer = text(cheese$RETAILER),
  volume = cheese$VOLUME,
  disp = cheese$DISP,
  price = cheese$PRICE
))

data("Exam", package = "mlmRev")
write_table("exam", data.frame(
  school = text(Exam$school),
  student = text(Exam$student),
  sex = c(F = "female", M = "male")[text(Exam$sex)],
  standlrt = Exam$standLRT,
  normexam = Exam$normexam,
  schgend = text(Exam$schgend),
  schavg = Exam$schavg,
  vr = text(Exam$vr),
  intake = text(Exam$intake)
))
