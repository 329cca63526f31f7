"""Which tables a statement reads, views expanded: what BigQuery's dry run says and the SQL engine does not.

By sqlglot, an analyser that shares no code with the product. What it cannot analyse it says nothing about.
"""

import requests
import sqlglot
from sqlglot import exp

KINDS = {exp.Insert: "INSERT", exp.Update: "UPDATE", exp.Delete: "DELETE", exp.Merge: "MERGE", exp.Drop: "DROP_TABLE"}


class Analyser:
    def __init__(self, engine):
        self.engine = engine
        #: Views by full name: the engine does not give their text back.
        self.views = {}

    def read(self, sql, project, dataset=None):
        """(statement type, tables as (project, dataset, table)), or (type, None) where the tables are not known."""
        try:
            statements = [statement for statement in sqlglot.parse(sql, read="bigquery") if statement is not None]
        except sqlglot.errors.SqlglotError:
            return "SCRIPT", None
        if len(statements) != 1:
            return "SCRIPT", None
        kind = self.kind(statements[0])
        if kind in ("SCRIPT", "OTHER"):
            return kind, None
        found = {}
        self.tables(statements[0], project, dataset, found, 0)
        return kind, list(found)

    @staticmethod
    def kind(statement):
        if isinstance(statement, exp.Query):
            return "SELECT"
        if isinstance(statement, exp.Create):
            return f"CREATE_{statement.kind}"
        for kind, name in KINDS.items():
            if isinstance(statement, kind):
                return name
        return "SCRIPT" if isinstance(statement, exp.Command) else "OTHER"

    def tables(self, statement, project, dataset, found, depth):
        """Adds to `found` every table that is named, and what stands behind views."""
        hidden = {cte.alias_or_name.lower() for cte in statement.find_all(exp.CTE)}
        for table in statement.find_all(exp.Table):
            if not table.db and table.name.lower() in hidden or not table.name:
                continue
            name = (table.catalog or project, table.db or dataset, table.name)
            if name[1] is None or name in found:
                continue
            found[name] = True
            view = self.views.get(name)
            if view and depth < 16:
                self.tables(sqlglot.parse_one(view, read="bigquery"), name[0], None, found, depth + 1)

    def resource(self, name):
        project, dataset, table = name
        answer = requests.get(f"{self.engine}/bigquery/v2/projects/{project}/datasets/{dataset}/tables/{table}", timeout=10)
        return answer.json() if answer.status_code == 200 else {}

    def bytes(self, names):
        return sum(8 * int(self.resource(name).get("numRows", 0)) for name in names)
