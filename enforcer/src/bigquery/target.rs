//! Which table a statement writes, as its text says. Only statements that fill, change, make or remove one table are known; BigQuery's dry run
//! must name the same one before anything is let through.

use enforcer_proto::bucket::BucketRef;
use sqlparser::ast::{
    ArrayElemTypeDef, ColumnDef, ColumnOption, ColumnOptionDef, CreateTable, CreateTableOptions,
    DataType, Delete, ExportData, Expr, FromTable, Insert, ObjectName, ObjectType, SqlOption,
    Statement, TableConstraint, TableFactor, TableObject, TableWithJoins, Truncate, Value,
};

/// What a statement does to tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deed<'a> {
    /// It only reads.
    Reads,
    /// It writes this one.
    Writes(&'a ObjectName),
    /// The result of what it reads goes to this bucket.
    Exports(BucketRef),
}

/// What a statement does; none where that is not known here.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the parser's kinds of statements, of which these few are known"
)]
pub(super) fn deed(statement: &Statement) -> Option<Deed<'_>> {
    let target = match statement {
        Statement::Query(_) => return Some(Deed::Reads),
        Statement::ExportData(export) => return of_export(export).map(Deed::Exports),
        Statement::Insert(insert) => of_insert(insert),
        Statement::Update(update) => of_joined(&update.table),
        Statement::Delete(delete) => of_delete(delete),
        Statement::Merge(merge) => of_factor(&merge.table),
        Statement::Truncate(truncate) => of_truncate(truncate),
        Statement::CreateTable(create) => of_create(create),
        Statement::Drop {
            object_type: ObjectType::Table,
            names,
            temporary: false,
            table: None,
            ..
        } => only(names),
        _ => None,
    };
    target.map(Deed::Writes)
}

/// What an export may say besides where it goes: how it is written.
const EXPORT_OPTIONS: [&str; 7] = [
    "uri",
    "format",
    "compression",
    "field_delimiter",
    "header",
    "overwrite",
    "use_avro_logical_types",
];

/// The formats in which it is written as files, and no other thing.
const EXPORT_FORMATS: [&str; 4] = ["CSV", "JSON", "AVRO", "PARQUET"];

/// The bucket that an export goes to. Not through a connection, which reaches elsewhere; and no address that is computed.
fn of_export(export: &ExportData) -> Option<BucketRef> {
    let is_plain = export.connection.is_none() && are_plain(&export.options, &EXPORT_OPTIONS);
    let named = |name: &'static str| -> Vec<&Expr> {
        let values = export
            .options
            .iter()
            .filter_map(|option| value_of(option, name));
        values.collect()
    };
    let formats = named("format");
    let format = only(&formats)
        .filter(|_| is_plain)
        .and_then(|format| text(format))?;
    let is_known = EXPORT_FORMATS
        .iter()
        .any(|known| known.eq_ignore_ascii_case(format));
    let uris = named("uri");
    let uri = only(&uris).filter(|_| is_known)?;
    BucketRef::of_uri(text(uri)?).ok()
}

fn value_of<'a>(option: &'a SqlOption, name: &str) -> Option<&'a Expr> {
    if let SqlOption::KeyValue { key, value } = option
        && key.value.eq_ignore_ascii_case(name)
    {
        return Some(value);
    }
    None
}

/// A string as it is written out.
fn text(value: &Expr) -> Option<&str> {
    if let Expr::Value(value) = value
        && let Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) = &value.value
    {
        return Some(text);
    }
    None
}

fn only<T>(all: &[T]) -> Option<&T> {
    match all {
        [one] => Some(one),
        [] | [_, _, ..] => None,
    }
}

fn of_insert(insert: &Insert) -> Option<&ObjectName> {
    match &insert.table {
        TableObject::TableName(name) => Some(name),
        TableObject::TableFunction(_) | TableObject::TableQuery(_) => None,
    }
}

fn of_joined(table: &TableWithJoins) -> Option<&ObjectName> {
    if table.joins.is_empty() {
        of_factor(&table.relation)
    } else {
        None
    }
}

fn of_factor(factor: &TableFactor) -> Option<&ObjectName> {
    if let TableFactor::Table {
        name, args: None, ..
    } = factor
    {
        Some(name)
    } else {
        None
    }
}

fn of_delete(delete: &Delete) -> Option<&ObjectName> {
    let from = match &delete.from {
        FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from) => from,
    };
    let is_plain = delete.tables.is_empty() && delete.using.is_none();
    only(from).filter(|_| is_plain).and_then(of_joined)
}

fn of_truncate(truncate: &Truncate) -> Option<&ObjectName> {
    only(&truncate.table_names).map(|target| &target.name)
}

/// Not what is made of another table without a query: the dry run is not known to name that one. And not what lies elsewhere.
fn of_create(create: &CreateTable) -> Option<&ObjectName> {
    let is_of_another = create.like.is_some()
        || create.clone.is_some()
        || create.snapshot
        || create.inherits.is_some()
        || create.partition_of.is_some();
    let is_elsewhere = create.external
        || create.temporary
        || create.location.is_some()
        || create.with_connection.is_some();
    let is_plain = has_plain_options(&create.table_options)
        && create.columns.iter().all(is_plain_column)
        && create.constraints.iter().all(is_plain_constraint);
    (!is_of_another && !is_elsewhere && is_plain).then_some(&create.name)
}

/// What a table's options may say: how it is called and laid out. Others put its data elsewhere, or say who may read it.
const TABLE_OPTIONS: [&str; 7] = [
    "description",
    "friendly_name",
    "labels",
    "expiration_timestamp",
    "partition_expiration_days",
    "require_partition_filter",
    "default_rounding_mode",
];
/// The same of a column's.
const COLUMN_OPTIONS: [&str; 2] = ["description", "rounding_mode"];

fn has_plain_options(options: &CreateTableOptions) -> bool {
    match options {
        CreateTableOptions::None => true,
        CreateTableOptions::Options(options) => are_plain(options, &TABLE_OPTIONS),
        CreateTableOptions::With(_)
        | CreateTableOptions::Plain(_)
        | CreateTableOptions::TableProperties(_) => false,
    }
}

fn are_plain(options: &[SqlOption], allowed: &[&str]) -> bool {
    let is_plain = |option: &SqlOption| {
        matches!(option, SqlOption::KeyValue { key, .. }
            if allowed.iter().any(|allowed| key.value.eq_ignore_ascii_case(allowed)))
    };
    options.iter().all(is_plain)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the parser's kinds of options, of which these few are known"
)]
fn is_plain_column(column: &ColumnDef) -> bool {
    let is_plain = |option: &ColumnOptionDef| match &option.option {
        ColumnOption::Null | ColumnOption::NotNull | ColumnOption::Default(_) => true,
        ColumnOption::Options(options) => are_plain(options, &COLUMN_OPTIONS),
        _ => false,
    };
    column.options.iter().all(is_plain) && is_plain_type(&column.data_type)
}

/// Fields of a struct have options of their own.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the parser's kinds of types, of which two hold others"
)]
fn is_plain_type(kind: &DataType) -> bool {
    match kind {
        DataType::Struct(fields, _) => fields.iter().all(|field| {
            let options = field.options.as_deref().unwrap_or_default();
            are_plain(options, &COLUMN_OPTIONS) && is_plain_type(&field.field_type)
        }),
        DataType::Array(
            ArrayElemTypeDef::AngleBracket(inner)
            | ArrayElemTypeDef::SquareBracket(inner, _)
            | ArrayElemTypeDef::Parenthesis(inner),
        ) => is_plain_type(inner),
        _ => true,
    }
}

/// A key that leads to another table tells of that.
const fn is_plain_constraint(constraint: &TableConstraint) -> bool {
    matches!(constraint, TableConstraint::PrimaryKey(_))
}

#[cfg(test)]
mod tests {
    use sqlparser::dialect::BigQueryDialect;
    use sqlparser::parser::Parser;

    use super::*;

    fn written(sql: &str) -> Option<String> {
        let statements = Parser::parse_sql(&BigQueryDialect, sql).expect(sql);
        match deed(statements.first().expect("one"))? {
            Deed::Reads => Some("nothing".to_owned()),
            Deed::Writes(name) => Some(name.to_string()),
            Deed::Exports(bucket) => Some(bucket.to_string()),
        }
    }

    #[test]
    fn the_table_that_a_statement_writes_is_read_from_its_text() {
        for sql in [
            "INSERT INTO d.t (a) VALUES (1)",
            "INSERT d.t (a) SELECT a FROM d.other",
            "UPDATE d.t AS x SET a = 1 WHERE TRUE",
            "UPDATE d.t SET a = o.a FROM d.other AS o WHERE TRUE",
            "DELETE FROM d.t WHERE a IN (SELECT a FROM d.other)",
            "DELETE d.t WHERE TRUE",
            "MERGE INTO d.t AS t USING d.other AS o ON t.a = o.a WHEN MATCHED THEN DELETE",
            "TRUNCATE TABLE d.t",
            "CREATE TABLE d.t (a INT64)",
            "CREATE TABLE d.t (a INT64 NOT NULL OPTIONS (description = 'x'), b ARRAY<STRUCT<c STRING>>) OPTIONS (labels = [('a', 'b')])",
            "CREATE OR REPLACE TABLE d.t PARTITION BY day AS SELECT * FROM d.other",
            "DROP TABLE IF EXISTS d.t",
        ] {
            assert_eq!(written(sql).as_deref(), Some("d.t"), "{sql}");
        }
        assert_eq!(written("SELECT * FROM d.t").as_deref(), Some("nothing"));
    }

    #[test]
    fn the_bucket_that_an_export_goes_to_is_read_where_it_is_written_out() {
        for sql in [
            "EXPORT DATA OPTIONS (uri = 'gs://out-1/a/*.csv', format = 'CSV', overwrite = true, header = true) AS SELECT 1",
            "export data options (URI = \"gs://out-1/*\", Format = 'AVRO') as (SELECT a FROM d.t)",
        ] {
            assert_eq!(written(sql).as_deref(), Some("gs://out-1"), "{sql}");
        }
        for sql in [
            "EXPORT DATA OPTIONS (format = 'CSV') AS SELECT 1",
            "EXPORT DATA OPTIONS (uri = 'gs://out-1/a', uri = 'gs://in-1/a', format = 'CSV') AS SELECT 1",
            "EXPORT DATA OPTIONS (uri = 'gs://' || 'out-1/a', format = 'CSV') AS SELECT 1",
            "EXPORT DATA OPTIONS (uri = CONCAT('gs://out-1', '/a'), format = 'CSV') AS SELECT 1",
            "EXPORT DATA OPTIONS (uri = 's3://out-1/a', format = 'CSV') AS SELECT 1",
            "EXPORT DATA OPTIONS (uri = 'gs://out-1/a', format = 'CLOUD_PUBSUB') AS SELECT 1",
            "EXPORT DATA OPTIONS (uri = 'gs://out-1/a') AS SELECT 1",
            "EXPORT DATA OPTIONS (uri = 'gs://out-*/a', format = 'CSV') AS SELECT 1",
            "EXPORT DATA OPTIONS (uri = 'gs://out-1/a', kms_key = 'x', format = 'CSV') AS SELECT 1",
            "EXPORT DATA WITH CONNECTION c OPTIONS (uri = 'gs://out-1/a', format = 'CSV') AS SELECT 1",
        ] {
            assert_eq!(written(sql), None, "{sql}");
        }
    }

    #[test]
    fn what_else_a_statement_may_do_is_not_known() {
        for sql in [
            "CREATE TABLE d.t LIKE d.other",
            "CREATE TABLE d.t CLONE d.other",
            "CREATE TEMP TABLE t (a INT64)",
            "CREATE TABLE d.t (a STRING) OPTIONS (table_format = 'ICEBERG', storage_uri = 'gs://elsewhere/x/')",
            "CREATE TABLE d.t (a STRING) OPTIONS (kms_key_name = 'x')",
            "CREATE TABLE d.t (a STRING OPTIONS (data_policies = ['x']))",
            "CREATE TABLE d.t (a STRUCT<b STRING OPTIONS (data_policies = ['x'])>)",
            "CREATE TABLE d.t (a ARRAY<STRUCT<b STRING OPTIONS (policy_tags = 'x')>>)",
            "CREATE TABLE d.t (a INT64, FOREIGN KEY (a) REFERENCES d.other (a) NOT ENFORCED)",
            "CREATE TABLE d.t (a INT64 REFERENCES d.other (a) NOT ENFORCED)",
            "CREATE VIEW d.v AS SELECT 1",
            "DROP VIEW d.v",
            "DROP SCHEMA d",
            "DROP TABLE d.t, d.u",
            "ALTER TABLE d.t RENAME TO u",
        ] {
            assert_eq!(written(sql), None, "{sql}");
        }
    }
}
