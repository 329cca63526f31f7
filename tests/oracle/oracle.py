"""What ZetaSQL, GoogleSQL's own analyser, reads in a statement: the oracle that the product's reading is compared with.

    oracle.py CACHE

One request a line on standard input, one answer a line on standard output, both JSON; the first line says that it is ready. CACHE is a folder
for the compiled module, which takes half a minute to make. A request has the text as `sql`, the default dataset as `dataset`, and `deep`. An
answer has

- `error`: why the text cannot be parsed as one statement, or null;
- `tables`: the tables that it names, by the parser's own extraction, or null where it has none for such a text;
- `analysed`: the tables that it scans, by the analyser, over the tables below; or null where those do not suffice;
- `said`: what the analyser says of a text that it does not take, or null;

and where `deep` is true also

- `kinds`: the parser's names of the statements in it, of which there may be several here;
- `written`: every path that stands where a table can, whatever it means there;
- `called`: every path of more than one name that stands where a routine, a model, a connection or a property graph can;
- `world`: what the test world's BigQuery says it is and reads and writes: its kind, tables or null, and the table that is written or null.

A request that has `builtins` alone is answered by `builtins`, the names of all of GoogleSQL's own functions.

Where `deep` or `writes` is true it has

- `deed`: what its one statement does, of those that a window may do; or null;
- `target`: the path of the table that it writes, or null;
- `exported`: where the result of an export goes: the strings of its `uri`, of which one that is computed is null.
"""

import fcntl
import importlib.metadata
import json
import pathlib
import sys

import wasmtime
from zetasql.core import wasm_client
from zetasql.core.exceptions import ServerError
from zetasql.wasi import get_wasm_path
from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as service
from zetasql.wasi._pb2.zetasql.parser import ast_enums_pb2 as ast_enums
from zetasql.wasi._pb2.zetasql.proto import options_pb2 as options
from zetasql.wasi._pb2.zetasql.proto.simple_catalog_pb2 import SimpleCatalogProto
from zetasql.wasi._pb2.zetasql.public import options_pb2 as public
from zetasql.wasi._pb2.zetasql.public.type_pb2 import TYPE_ARRAY, TYPE_DATE, TYPE_INT64, TYPE_STRING, TYPE_STRUCT, TypeProto

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "world" / "far"))
from analyser import Analyser  # noqa: E402

PROJECT = "demo-project"
DAY, NUMBER, TEXT = (TypeProto(type_kind=kind) for kind in (TYPE_DATE, TYPE_INT64, TYPE_STRING))
PART = TypeProto(type_kind=TYPE_STRUCT)
for name, kind in (("sku", TEXT), ("price", NUMBER)):
    PART.struct_type.field.add(field_name=name, field_type=kind)
PARTS = TypeProto(type_kind=TYPE_ARRAY)
PARTS.array_type.element_type.CopyFrom(PART)

#: The tables that the battery names, in scope and out of it. Those whose names shadow others are not in the test world.
TABLES = {
    "finance.daily": {"day": DAY, "amount": NUMBER},
    "finance.accounts": {"id": NUMBER, "name": TEXT},
    "finance.invoices": {"id": NUMBER, "parts": PARTS, "salaries": PARTS},
    "finance.hr": {"id": NUMBER, "salaries": PARTS},
    "finance.hr_view": {"name": TEXT, "salary": NUMBER},
    "finance.daily_view": {"day": DAY, "amount": NUMBER},
    "hr.salaries": {"name": TEXT, "salary": NUMBER},
    "hr.daily": {"day": DAY, "amount": NUMBER},
    "hr.parts": {"sku": TEXT, "price": NUMBER},
    "vault.keys": {"name": TEXT, "salary": NUMBER},
    "scratch.notes": {"id": NUMBER, "text": TEXT},
    "scratch.more": {"id": NUMBER, "text": TEXT},
}
#: Words that BigQuery reserves and ZetaSQL leaves to its users to reserve.
RESERVED = ("QUALIFY", "MATCH_RECOGNIZE", "GRAPH_TABLE")
#: What statements do to tables, and where in the syntax tree the path of the one stands that is written.
DEEDS = {
    "ASTQueryStatementProto": ("SELECT", None), "ASTExportDataStatementProto": ("EXPORT", None), "ASTInsertStatementProto": ("INSERT", "target_path"),
    "ASTUpdateStatementProto": ("UPDATE", "target_path"), "ASTDeleteStatementProto": ("DELETE", "target_path"),
    "ASTMergeStatementProto": ("MERGE", "target_path"), "ASTTruncateStatementProto": ("TRUNCATE", "target_path"),
    "ASTCreateTableStatementProto": ("CREATE TABLE", "name"), "ASTDropStatementProto": ("DROP", "name"),
}
#: What a query can do behind a pipe besides reading.
PIPED = ("ASTPipeExportDataProto", "ASTPipeInsertProto", "ASTPipeCreateTableProto")
#: Where in the syntax tree a path stands for a table, and where for something that is called or connected to.
TABLE_PLACES = {
    "ASTTablePathExpressionProto": "path_expr", "ASTTableClauseProto": "table_path", "ASTCloneDataSourceProto": "parent",
    "ASTCopyDataSourceProto": "parent",
}
CALL_PLACES = {
    "ASTFunctionCallProto": "function", "ASTTVFProto": "name", "ASTModelClauseProto": "model_path", "ASTCallStatementProto": "procedure_name",
    "ASTConnectionClauseProto": "connection_path", "ASTGraphTableQueryProto": "graph_reference", "ASTPipeCallProto": "tvf",
}


def compiled(cache):
    """The module, from the cache or into it; who comes second waits for who makes it."""
    cache.mkdir(parents=True, exist_ok=True)
    engine = wasmtime.Engine(shared())
    names = "-".join(f"{name}-{importlib.metadata.version(name)}" for name in ("zetasql", "wasmtime"))
    made = cache / f"{names}.cwasm"
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            draft = made.with_suffix(".draft")
            draft.write_bytes(wasmtime.Module.from_file(engine, get_wasm_path()).serialize())
            draft.rename(made)
    return made


def shared():
    config = wasmtime.Config()
    config.shared_memory = True
    return config


class Cached:
    """Stands in for the library's way to compile the module anew at each start."""

    made = None

    @classmethod
    def from_file(cls, engine, _):
        return wasmtime.Module.deserialize_file(engine, str(cls.made))


class Oracle:
    def __init__(self, cache):
        Cached.made = compiled(cache)
        wasm_client.Module = Cached
        self.client = wasm_client.WasmClient(get_wasm_path())
        self.language = self.call("GetLanguageOptions", service.LanguageOptionsRequest(maximum_features=True), options.LanguageOptionsProto)
        self.language.product_mode = public.PRODUCT_EXTERNAL
        del self.language.supported_statement_kinds[:]
        self.language.reserved_keywords.extend(RESERVED)
        self.analyser_options = self.call("GetAnalyzerOptions", service.AnalyzerOptionsRequest(), options.AnalyzerOptionsProto)
        self.analyser_options.language_options.CopyFrom(self.language)
        self.analyser_options.allow_undeclared_parameters = True
        self.pools = service.DescriptorPoolListProto()
        self.pools.definitions.add().builtin.SetInParent()
        asked = service.RegisterCatalogRequest(simple_catalog=self.catalog(), descriptor_pool_list=self.pools)
        self.registered = self.call("RegisterCatalog", asked, service.RegisterResponse).registered_id
        self.world = Analyser(None)

    def call(self, name, request, answer):
        return self.client.call_grpc_func(f"ZetaSqlLocalService_{name}", request, answer)

    def catalog(self):
        """The tables by every way to write them: with and without the project, and quoted as one name."""
        root = SimpleCatalogProto(name="root")
        root.builtin_function_options.language_options.CopyFrom(self.language)
        project = root.catalog.add(name=PROJECT)
        places = {}
        for name, columns in TABLES.items():
            dataset, table = name.split(".")
            whole = f"{PROJECT}.{name}"
            for parent in (root, project):
                key = (parent.name, dataset)
                if key not in places:
                    places[key] = parent.catalog.add(name=dataset)
                describe(places[key].table.add(), table, whole, columns)
            for alias in (name, whole):
                describe(root.table.add(), alias, whole, columns)
        return root

    def builtins(self):
        asked = options.ZetaSQLBuiltinFunctionOptionsProto()
        asked.language_options.CopyFrom(self.language)
        functions = self.call("GetBuiltinFunctions", asked, service.GetBuiltinFunctionsResponse).function
        return {"builtins": sorted(".".join(function.name_path) for function in functions)}

    def read(self, request):
        if request.get("builtins"):
            return self.builtins()
        sql = request["sql"]
        answer = {**self.named(sql), **self.analysed(sql)}
        if request.get("deep") or request.get("writes"):
            answer.update(self.deed(sql))
        return {**answer, **self.deep(request)} if request.get("deep") else answer

    def statements(self, sql):
        """The syntax trees of the statements in a text, and that of the whole."""
        asked = service.ParseRequest(sql_statement=sql, options=self.language, allow_script=True)
        script = self.call("Parse", asked, service.ParseResponse).parsed_script
        return script.statement_list_node.statement_list, script

    def deed(self, sql):
        nothing = {"deed": None, "target": None, "exported": []}
        try:
            statements, _ = self.statements(sql)
        except ServerError:
            return nothing
        if len(statements) != 1:
            return nothing
        statement = innermost(statements[0])
        deed, place = DEEDS.get(statement.DESCRIPTOR.name, (None, None))
        if deed == "DROP":
            deed = "DROP TABLE" if own(statement, "schema_object_kind") == ast_enums.kTable else None
        if does_behind_a_pipe(statement):
            # It is more than a query.
            deed = None
        if own(statement, "scope"):
            # It is of a session.
            deed = None
        target = place and first_path(own(statement, place))
        exported = [text(option.value) for option in options_of(statement) if option.name.id_string.lower() == "uri"] if deed == "EXPORT" else []
        return {"deed": deed, "target": target, "exported": exported}

    def named(self, sql):
        asked = service.ExtractTableNamesFromStatementRequest(sql_statement=sql, options=self.language)
        try:
            found = self.call("ExtractTableNamesFromStatement", asked, service.ExtractTableNamesFromStatementResponse)
        except ServerError as error:
            return {"error": error.message, "tables": None}
        return {"error": None, "tables": [list(table.table_name_segment) for table in found.table_name]}

    def deep(self, request):
        sql = request["sql"]
        kinds, written, called = [], [], []
        try:
            statements, script = self.statements(sql)
            kinds = [statement.ListFields()[0][0].name for statement in statements]
            walk(script, written, called)
        except ServerError:
            pass
        kind, tables, target = self.world.read(sql, PROJECT, request.get("dataset"))
        return {"kinds": kinds, "written": written, "called": called, "world": {"kind": kind, "tables": tables, "target": target}}

    def analysed(self, sql):
        asked = service.AnalyzeRequest(
            sql_statement=sql, registered_catalog_id=self.registered, descriptor_pool_list=self.pools, options=self.analyser_options)
        try:
            resolved = self.call("Analyze", asked, service.AnalyzeResponse)
        except ServerError as error:
            return {"analysed": None, "said": error.message}
        found = []
        scans(resolved.resolved_statement, found)
        return {"analysed": found, "said": None}


def describe(table, name, whole, columns):
    table.name, table.name_in_catalog, table.full_name = name, name, whole
    for column, kind in columns.items():
        table.column.add(name=column, type=kind)


def messages(node):
    """What a node holds, one level down."""
    for field, value in node.ListFields():
        if field.message_type is not None:
            yield from value if field.is_repeated else (value,)


def scans(node, found):
    # What a definition makes has no name in the catalog.
    if node.DESCRIPTOR.name == "TableRefProto" and node.full_name and node.full_name not in found:
        found.append(node.full_name)
    for part in messages(node):
        scans(part, found)


def walk(node, written, called):
    """Every path that stands where a table can, or something that is called."""
    kind = node.DESCRIPTOR.name
    if kind in TABLE_PLACES:
        add(node, TABLE_PLACES[kind], written, 1)
    if kind in CALL_PLACES:
        add(node, CALL_PLACES[kind], called, 2)
    for part in messages(node):
        walk(part, written, called)


def add(node, place, paths, least):
    if not node.HasField(place):
        return
    path = first_path(getattr(node, place))
    if path and sum(len(name.split(".")) for name in path) >= least and path not in paths:
        paths.append(path)


def innermost(node):
    """The node itself, where it stands in those that can be one of several."""
    while node.DESCRIPTOR.name.startswith("Any"):
        node = node.ListFields()[0][1]
    return node


def own(node, name):
    """A field of a node, or of what it is a kind of; None where there is none."""
    while name not in node.DESCRIPTOR.fields_by_name:
        if "parent" not in node.DESCRIPTOR.fields_by_name:
            return None
        node = node.parent
    return getattr(node, name)


def does_behind_a_pipe(node):
    """Whether a query writes or exports in one of its pipes."""
    return node.DESCRIPTOR.name in PIPED or any(does_behind_a_pipe(part) for part in messages(node))


def options_of(statement):
    options = own(statement, "options_list")
    return options.options_entries if options is not None else []


def text(value):
    """A string that is written out; None for anything else."""
    node = innermost(value)
    if node.DESCRIPTOR.name != "ASTStringLiteralProto":
        return None
    return node.string_value if "string_value" in node.DESCRIPTOR.fields_by_name else None


def first_path(node):
    """The names of the path that a node is, or is made around."""
    if node.DESCRIPTOR.name == "ASTPathExpressionProto":
        return [name.id_string for name in node.names]
    return next((path for part in messages(node) if (path := first_path(part))), None)


def main():
    oracle = Oracle(pathlib.Path(sys.argv[1]))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(oracle.read(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
