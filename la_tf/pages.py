"""HTML pages that open from disk, offline: Bokeh draws, Jinja2 lays out and escapes, names may be anything."""

from pathlib import Path

import jinja2
from bokeh.embed import components
from bokeh.resources import Resources
from markupsafe import Markup

from la_tf.names_file import shown

TEMPLATES = Path(__file__).with_name("templates")


def render(template, figures, **values):
    """Returns the page of a `template` as HTML; it finds `figures`, Bokeh models by name, drawn in `drawn`."""
    script, drawn = components(figures) if figures else ("", {})
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.globals["zip"] = zip
    return environment.get_template(template).render(
        # What Bokeh has made is HTML, and has its data escaped.
        bokeh=Markup(Resources(mode="inline", components=["bokeh"]).render()),
        script=Markup(script),
        drawn={name: Markup(element) for name, element in drawn.items()},
        **values,
    )


def _printable(value):
    """Names, and so errors that name something, may hold bytes that are no text; a page is UTF-8."""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value
