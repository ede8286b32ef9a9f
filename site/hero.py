"""Draw hero.png, the picture at the top of the README. Run in the course's environment."""

import io
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

from helpers import mixed, plots, simulate

plots.use_style()
schools = simulate.schools(30, 20, seed=3)
fits = [
    mixed.fit("math_score ~ app_hours", schools, "school_id", terms)
    for terms in (None, "~app_hours")
]
axes = plots.three_panels(schools, "app_hours", "math_score", "school_id", *fits)
drawn = io.BytesIO()
axes[0].figure.savefig(drawn, dpi=150, metadata={"Software": None})
plt.close("all")
Image.open(drawn).convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(
    Path(__file__).with_name("hero.png"), optimize=True
)
