"""The questions of the exercises, a file a lesson; `helpers.check` asks them."""
