//! What the tests read of a Grafana dashboard.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// A dashboard in Grafana's classic JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Dashboard {
    pub(super) uid: String,
    pub(super) title: String,
    pub(super) tags: Vec<String>,
    pub(super) timezone: String,
    pub(super) editable: bool,
    pub(super) annotations: List<Annotation>,
    pub(super) templating: List<Variable>,
    pub(super) panels: Vec<Panel>,
}

#[derive(Deserialize)]
pub(super) struct List<T> {
    pub(super) list: Vec<T>,
}

#[derive(Deserialize)]
pub(super) struct Annotation {
    pub(super) name: String,
    pub(super) datasource: Datasource,
    pub(super) expr: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) label: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) query: Value,
    #[serde(default)]
    pub(super) datasource: Option<Datasource>,
    #[serde(default)]
    pub(super) multi: bool,
    #[serde(default)]
    pub(super) include_all: bool,
    #[serde(default)]
    pub(super) all_value: Option<String>,
    pub(super) refresh: u8,
}

#[derive(Deserialize, PartialEq, Eq, Debug)]
pub(super) struct Datasource {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) uid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Panel {
    pub(super) id: u32,
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) title: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) datasource: Option<Datasource>,
    #[serde(default)]
    pub(super) field_config: Value,
    pub(super) grid_pos: GridPosition,
    #[serde(default)]
    pub(super) targets: Vec<Target>,
}

#[derive(Deserialize, Clone, Copy)]
pub(super) struct GridPosition {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) w: u32,
    pub(super) h: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Target {
    pub(super) ref_id: String,
    pub(super) datasource: Datasource,
    pub(super) expr: String,
    pub(super) legend_format: String,
    #[serde(default)]
    pub(super) instant: bool,
}

impl Dashboard {
    pub(super) fn read(path: &Path) -> Dashboard {
        serde_json::from_str(&super::read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The panels that show something; rows only hold them together.
    pub(super) fn charts(&self) -> impl Iterator<Item = &Panel> {
        self.panels.iter().filter(|panel| panel.kind != "row")
    }

    pub(super) fn variable(&self, name: &str) -> &Variable {
        self.templating.list.iter().find(|variable| variable.name == name).unwrap_or_else(|| panic!("no variable {name}"))
    }
}

impl Panel {
    pub(super) fn unit(&self) -> &str {
        self.field_config["defaults"]["unit"].as_str().unwrap_or_default()
    }
}

impl Variable {
    /// The query of a query variable.
    pub(super) fn expression(&self) -> &str {
        self.query["query"].as_str().unwrap_or_default()
    }
}
