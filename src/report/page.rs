//! The HTML around the sections: head, style, table of contents.

use super::plot;

/// A page that is being written.
pub struct Page {
    title: String,
    contents: String,
    body: String,
}

impl Page {
    /// An empty page.
    pub fn new(title: &str) -> Self {
        Page { title: escape(title), contents: String::new(), body: String::new() }
    }

    /// Adds a section if there is anything in it.
    pub fn optional(&mut self, id: &str, heading: &str, html: Option<String>) {
        if let Some(html) = html {
            self.section(id, heading, &html);
        }
    }

    /// Adds a section: its anchor, its heading, its HTML.
    pub fn section(&mut self, id: &str, heading: &str, html: &str) {
        let heading = escape(heading);
        self.contents.push_str(&format!("<li><a href=\"#{id}\">{heading}</a></li>\n"));
        self.body
            .push_str(&format!("<section id=\"{id}\">\n<h2>{heading}</h2>\n{html}\n</section>\n"));
    }

    /// The whole file.
    pub fn html(&self) -> String {
        let Page { title, contents, body } = self;
        let (plots, version) = (plot::style(), env!("CARGO_PKG_VERSION"));
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{title} · lawsmith</title>\n<style>\n{STYLE}{plots}</style>\n</head>\n<body>\n\
             <header><h1>{title}</h1><p class=\"note\">Report of lawsmith {version}, made from the \
             files of this run's folder.</p></header>\n\
             <nav aria-label=\"Contents\"><ol>\n{contents}</ol></nav>\n<main>\n{body}</main>\n\
             </body>\n</html>\n"
        )
    }
}

const STYLE: &str = "\
:root{color-scheme:light dark;--paper:#fff;--panel:#f5f7f9;--muted:#59636e;--good:#00664b;--bad:#a33c00}
@media (prefers-color-scheme:dark){:root{--paper:#14171a;--panel:#1d2125;--muted:#a0a9b2;--good:#3ecf9f;--bad:#ff8f4a}}
@media print{:root{color-scheme:light;--paper:#fff;--panel:#f5f7f9;--muted:#59636e;--good:#00664b;--bad:#a33c00}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:2rem 1.25rem 4rem;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,'Segoe UI','DejaVu Sans',sans-serif}
h1{margin:0;font-size:1.9rem;overflow-wrap:anywhere}
h2{margin:0 0 .5rem;font-size:1.3rem}
h3{margin:1.5rem 0 .25rem;font-size:1.05rem}
p{max-width:46rem;margin:.5rem 0}
a{color:var(--series-0)}
.note{color:var(--muted);font-size:.9rem}
nav{margin:1.25rem 0 0;padding:.75rem 0;border:solid var(--grid);border-width:1px 0}
nav ol{display:flex;flex-wrap:wrap;gap:.25rem 1.5rem;margin:0;padding:0;list-style:none;font-size:.95rem}
section{margin-top:2.5rem}
figure{margin:1rem 0;min-width:0}
figure svg{display:block;max-width:100%;height:auto}
svg text{font-family:inherit}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(19rem,1fr));gap:0 1.25rem}
.panels figure{margin:.5rem 0}
.legend{display:flex;flex-wrap:wrap;gap:.1rem 1.25rem;margin:0 0 .25rem;padding:0;list-style:none;font-size:.9rem}
.key{display:inline-block;margin-right:.45em;vertical-align:middle}
.key.line{width:1.5em;border-top:3px solid}
.key.dashed{width:1.5em;border-top:3px dashed}
.key.dot{width:.6em;height:.6em;border-radius:50%;background:currentColor}
.key.ring{width:.9em;height:.9em;border-radius:50%;border:2px solid}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(8rem,1fr));gap:.75rem;margin:1rem 0;padding:0}
.figures div{padding:.6rem .9rem;background:var(--panel);border-radius:.4rem}
.figures dt{color:var(--muted);font-size:.85rem}
.figures dd{margin:0;font-size:1.25rem;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto;margin:.75rem 0}
table{border-collapse:collapse;font-size:.93rem;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--grid);text-align:left;vertical-align:middle}
th{color:var(--muted);font-weight:600}
td.number,th.number{text-align:right}
tr.chosen td{background:var(--panel);font-weight:600}
.law{margin:.75rem 0 1.25rem;padding:.9rem 1.1rem;background:var(--panel);border-left:3px solid var(--series-0);border-radius:0 .4rem .4rem 0;overflow-x:auto}
.law p{margin:.35rem 0 0}
.law math{font-size:1.2rem;margin:.2rem 0}
code,pre{font:.88em/1.5 ui-monospace,'DejaVu Sans Mono',monospace;overflow-wrap:anywhere}
pre{overflow-x:auto;padding:.9rem 1.1rem;background:var(--panel);border-radius:.4rem;white-space:pre-wrap}
.good{color:var(--good);font-weight:600}
.bad{color:var(--bad);font-weight:600}
";

/// Text escaped for HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number with at most four significant digits.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || !value.is_finite() {
        format!("{value}")
    } else if (1e-3..1e6).contains(&size) {
        let digits = (3 - size.log10().floor() as i32).max(0) as usize;
        let text = format!("{value:.digits$}");
        match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
            false => text,
        }
    } else {
        format!("{value:.3e}")
    }
}

/// A table; cells are HTML. Columns whose names begin with `#` are numbers, aligned right. Rows with
/// `true` are highlighted.
pub fn table(columns: &[&str], rows: &[(bool, Vec<String>)]) -> String {
    let class = |name: &str| if name.starts_with('#') { " class=\"number\"" } else { "" };
    let mut html = String::from("<div class=\"scroll\"><table><thead><tr>");
    for name in columns {
        let text = escape(name.trim_start_matches('#'));
        html.push_str(&format!("<th{}>{text}</th>", class(name)));
    }
    html.push_str("</tr></thead><tbody>\n");
    for (chosen, cells) in rows {
        html.push_str(if *chosen { "<tr class=\"chosen\">" } else { "<tr>" });
        for (name, cell) in columns.iter().zip(cells) {
            html.push_str(&format!("<td{}>{cell}</td>", class(name)));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

/// A few figures side by side: name and value of each.
pub fn figures(items: &[(String, String)]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let item = |(name, value): &(String, String)| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value))
    };
    format!("<dl class=\"figures\">{}</dl>\n", items.iter().map(item).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits() {
        let texts = [0.0, 1.0, 0.99951, 123.456, 1.5e-7, -0.0123, 12000.0].map(number);
        assert_eq!(texts, ["0", "1", "0.9995", "123.5", "1.500e-7", "-0.0123", "12000"]);
    }

    #[test]
    fn headings_are_escaped_and_listed() {
        let mut page = Page::new("a<b");
        page.section("x", "R² & more", "<p>text</p>");
        let html = page.html();
        assert!(html.contains("<title>a&lt;b · lawsmith</title>"));
        assert!(html.contains("<a href=\"#x\">R² &amp; more</a>"));
        assert!(!html.contains("http"), "no external resource");
    }
}
