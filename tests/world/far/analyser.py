"""Which tables a statement reads, views expanded: what BigQuery's dry run says and the SQL engine does not.

By sqlglot, an analyser that shares no code with the product. What it cannot analyse it says nothing about.
"""

import re

import sqlglot
from sqlglot import exp

KINDS = {exp.Insert: "INSERT", exp.Update: "UPDATE", exp.Delete: "DELETE", exp.Merge: "MERGE", exp.TruncateTable: "TRUNCATE_TABLE"}
#: Statements whose target BigQuery calls a definition's.
DDL = ("CREATE_TABLE", "CREATE_TABLE_AS_SELECT", "DROP_TABLE", "TRUNCATE_TABLE")

#: `EXPORT DATA`, which sqlglot does not know: its options, and the query.
EXPORT = re.compile(r"\s*EXPORT\s+DATA\s+OPTIONS\s*\((?P<options>[^)]*)\)\s*AS\s+(?P<query>.*)", re.IGNORECASE | re.DOTALL)


def is_path(table):
    """Whether what looks like a table is a path into a row of a SELECT around it."""
    if table.catalog or not table.db or table.meta.get("quoted_table"):
        return False
    node, is_own = table, True
    while node.parent and not isinstance(node, exp.CTE):
        if isinstance(node.parent, exp.Select):
            # In its own FROM the parser sees to it; a subquery in FROM sees nothing of what stands beside it.
            is_beside = isinstance(node, (exp.From, exp.Join))
            if not is_own and not is_beside and table.db.lower() in rows(node.parent):
                return True
            is_own = False
        node = node.parent
    return False


def rows(select):
    sources = [select.args.get("from_") or select.args.get("from"), *select.args.get("joins", [])]
    return {source.this.alias_or_name.lower() for source in sources if source}


class Analyser:
    def __init__(self, engine, views=()):
        self.engine = engine
        #: Views by full name: the engine does not give their text back.
        self.views = dict(views)

    def read(self, sql, project, dataset=None):
        """(statement type, tables as (project, dataset, table), the one that is written), without tables where they are not known; UNREADABLE is no
        type of BigQuery's."""
        export = EXPORT.fullmatch(sql)
        if export:
            kind, tables, _ = self.read(export["query"], project, dataset)
            return ("EXPORT_DATA" if kind == "SELECT" else kind), tables, None
        try:
            # What is only a comment behind a semicolon is no statement; what is empty between two is one that BigQuery does not take.
            statements = [statement for statement in sqlglot.parse(sql, read="bigquery") if not isinstance(statement, exp.Semicolon)]
        except sqlglot.errors.SqlglotError:
            return "UNREADABLE", None, None
        if len(statements) != 1 or statements[0] is None:
            return "SCRIPT", None, None
        kind = self.kind(statements[0])
        if kind in ("SCRIPT", "OTHER"):
            return kind, None, None
        found = {}
        self.tables(statements[0], project, dataset, found, 0)
        target = self.target(statements[0], kind, project, dataset)
        if kind in DDL or kind == "INSERT":
            found.pop(target, None)
        return kind, list(found), target

    @staticmethod
    def kind(statement):
        if isinstance(statement, exp.Query):
            return "SELECT"
        if isinstance(statement, exp.Create):
            return f"CREATE_{statement.kind}" + ("_AS_SELECT" if statement.kind == "TABLE" and statement.expression else "")
        if isinstance(statement, exp.Drop):
            return f"DROP_{statement.kind}"
        for kind, name in KINDS.items():
            if isinstance(statement, kind):
                return name
        return "SCRIPT" if isinstance(statement, exp.Command) else "OTHER"

    @staticmethod
    def target(statement, kind, project, dataset):
        """The table that a statement writes."""
        if kind not in DDL and kind not in KINDS.values():
            return None
        if kind == "TRUNCATE_TABLE":
            place = statement.expressions[0]
        else:
            # `DELETE t`, without FROM, has it in a list.
            place = statement.this or next(iter(statement.args.get("tables") or []), None)
        table = place and place.find(exp.Table)
        return table and (table.catalog or project, table.db or dataset, table.name)

    def tables(self, statement, project, dataset, found, depth):
        """Adds to `found` every table that is named, and what stands behind views."""
        hidden = {cte.alias_or_name.lower() for cte in statement.find_all(exp.CTE)}
        for table in statement.find_all(exp.Table):
            if not table.db and table.name.lower() in hidden or not table.name or is_path(table):
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
        status, answer = self.engine.call("GET", f"/bigquery/v2/projects/{project}/datasets/{dataset}/tables/{table}")
        return answer if status == 200 else {}

    def bytes(self, names):
        return sum(8 * int(self.resource(name).get("numRows", 0)) for name in names)
