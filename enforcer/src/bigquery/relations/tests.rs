//! What texts name, and which of them cannot be read.

use super::*;

fn read(sql: &str) -> Relations {
    let scope: Scope = "p.finance:read".parse().expect("a scope");
    Reading::of(sql, 10, &scope, "p", None).relations
}

#[test]
fn a_text_without_tables_is_known_from_one_that_hides_them() {
    for sql in [
        "SELECT 1",
        "SELECT * FROM UNNEST([1, 2]) AS x",
        "SELECT u.x FROM UNNEST([STRUCT([1] AS x)]) AS u, u.x",
        "WITH a AS (SELECT 1 AS x), b AS (SELECT x FROM a) SELECT * FROM b",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT * FROM n",
    ] {
        assert_eq!(read(sql), Relations::None, "{sql}");
    }
    for sql in [
        "EXECUTE IMMEDIATE 'x'",
        "SELECT 1; SELECT 2",
        "not sql",
        "SELECT 1 UNION ALL (TABLE hr.salaries)",
        "SELECT 1 UNION ALL (SELECT 2 UNION ALL TABLE hr.salaries)",
        "WITH x AS (SELECT 1 AS a) INSERT INTO finance.daily SELECT a FROM x",
    ] {
        assert!(matches!(read(sql), Relations::Unknown(_)), "{sql}");
    }
}

#[test]
fn tables_are_looked_for_where_bigquery_would() {
    for sql in [
        "SELECT * FROM finance.daily AS d, d.parts",
        "SELECT * FROM finance.daily, daily.parts",
        "SELECT 1 FROM finance.daily AS d WHERE EXISTS (SELECT p FROM d.parts AS p)",
        "SELECT * FROM (finance.daily AS d JOIN d.parts), d.parts",
        "WITH c AS (SELECT * FROM `p.finance.daily`) SELECT * FROM c",
        "SELECT * FROM `finance`.`daily`, `daily`.parts",
        "SELECT * FROM finance.INFORMATION_SCHEMA.TABLES, p.finance.information_schema.COLUMNS",
        "SELECT * FROM finance.daily AS d PIVOT (SUM(x) FOR y IN (1)) AS p, finance.hr AS hr, hr.parts",
    ] {
        assert_eq!(read(sql), Relations::Within, "{sql}");
    }
    for sql in [
        "SELECT * FROM finance.daily, hr.salaries",
        "SELECT * FROM hr.salaries, finance.hr",
        "SELECT * FROM hr.salaries AS hr",
        "WITH hr AS (SELECT 1 AS a) SELECT * FROM hr.salaries",
        "SELECT * FROM hr.salaries AS s, finance.daily AS hr",
        "SELECT * FROM finance.daily AS hr, (SELECT * FROM hr.salaries)",
        "SELECT * FROM (SELECT 1 FROM finance.daily AS hr), hr.salaries",
        "SELECT 1 FROM finance.daily AS hr UNION ALL SELECT 2 FROM hr.salaries",
        "SELECT (SELECT 1 FROM hr.salaries) FROM finance.daily AS hr",
        "SELECT (SELECT MAX(x) FROM `hr`.salaries)",
        "SELECT * FROM `p.hr.salaries`",
        "SELECT * FROM finance.daily AS hr, `hr.salaries`",
        "SELECT * FROM finance.daily AS hr, `p`.hr.salaries",
        "SELECT * FROM `finance.hr`, hr.salaries",
        "SELECT * FROM finance.hr(1), hr.salaries",
        "SELECT 1 FROM finance.daily AS hr WHERE 1 IN (WITH c AS (SELECT * FROM hr.salaries) SELECT 1 FROM c)",
        "SELECT * FROM finance.daily AS hr PIVOT (SUM(x) FOR y IN (1)) AS p, hr.salaries",
        "SELECT * FROM finance.daily AS hr UNPIVOT (x FOR y IN (a, b)), hr.salaries",
        "SELECT * FROM finance.daily AS hr, finance.x PIVOT (SUM((SELECT MAX(s) FROM hr.salaries)) FOR y IN (1))",
        "WITH hr AS (SELECT 1 AS a) SELECT 1 FROM hr PIVOT (SUM((SELECT MAX(s) FROM hr.salaries)) FOR a IN (1))",
        "SELECT * FROM finance.daily AS hr, finance.rows_of((SELECT MAX(s) FROM hr.salaries))",
        "SELECT * FROM finance.daily AS hr, (hr.salaries CROSS JOIN finance.daily)",
        "SELECT 1 FROM finance.daily AS hr WHERE EXISTS (SELECT 1 FROM finance.daily FOR SYSTEM_TIME AS OF (SELECT MAX(t) FROM hr.salaries))",
    ] {
        assert_eq!(
            read(sql),
            Relations::Outside("p.hr.salaries".into()),
            "{sql}"
        );
    }
}

/// What the dry run must list, in a project `p`.
fn named(sql: &str, default: Option<&str>) -> Vec<String> {
    let scope: Scope = "p.finance:read,p.scratch:write".parse().expect("a scope");
    let default = default.map(|dataset| DefaultDataset {
        project: None,
        dataset: dataset.into(),
    });
    let reading = Reading::of(sql, 40, &scope, "p", default.as_ref());
    let named = reading.named.into_iter();
    named
        .map(|table| {
            table.map_or_else(
                |name| format!("no table: {name}"),
                |table| table.to_string(),
            )
        })
        .collect()
}

#[test]
fn every_table_that_is_read_is_kept_by_its_whole_name_and_nothing_else() {
    for (sql, wanted) in [
        ("SELECT 1", &[][..]),
        (
            "SELECT * FROM finance.daily AS d, d.parts",
            &["p.finance.daily"],
        ),
        (
            "SELECT * FROM `p.finance.daily`, `finance`.`events_*`",
            &["p.finance.daily", "p.finance.events_*"],
        ),
        (
            "SELECT * FROM my-project.finance.daily",
            &["my-project.finance.daily"],
        ),
        (
            "SELECT * FROM finance.rows_of(1), finance.daily",
            &["p.finance.daily"],
        ),
        (
            "SELECT (SELECT MAX(x) FROM finance.a) FROM finance.b WHERE EXISTS (SELECT 1 FROM finance.c)",
            &["p.finance.a", "p.finance.b", "p.finance.c"],
        ),
        (
            "WITH c AS (SELECT * FROM finance.daily) SELECT * FROM C, c AS d",
            &["p.finance.daily"],
        ),
        (
            "SELECT * FROM finance.INFORMATION_SCHEMA.TABLES",
            &["no table: finance.INFORMATION_SCHEMA.TABLES"],
        ),
        (
            "SELECT * FROM p.finance.information_schema.TABLES",
            &["no table: p.finance.information_schema.TABLES"],
        ),
        (
            "SELECT * FROM `p.finance.daily.parts`",
            &["no table: p.finance.daily.parts"],
        ),
        (
            "INSERT INTO scratch.t (a) SELECT a FROM finance.daily",
            &["p.finance.daily"],
        ),
        (
            "MERGE `p.scratch.t` AS t USING finance.daily AS o ON t.a = o.a WHEN MATCHED THEN DELETE",
            &["p.finance.daily"],
        ),
        (
            "DELETE FROM scratch.t WHERE a IN (SELECT a FROM finance.daily)",
            &["p.finance.daily"],
        ),
        ("DROP TABLE scratch.t", &[]),
        (
            "EXPORT DATA OPTIONS (uri = 'gs://out-1/*', format = 'CSV') AS SELECT a FROM finance.daily",
            &["p.finance.daily"],
        ),
    ] {
        assert_eq!(named(sql, None), wanted, "{sql}");
    }
}

#[test]
fn a_name_without_a_dataset_is_a_common_table_expressions_only_where_that_can_be_named() {
    let both = &["p.finance.t", "p.finance.t"][..];
    let one = &["p.finance.t"][..];
    for (sql, wanted) in [
        ("SELECT * FROM t", one),
        ("SELECT * FROM `t` AS u", one),
        ("WITH t AS (SELECT 1) SELECT * FROM T", &[]),
        // An expression cannot be named in itself, nor in what stands before it.
        ("WITH t AS (SELECT * FROM t) SELECT * FROM t", one),
        (
            "WITH u AS (SELECT * FROM t), t AS (SELECT 1) SELECT * FROM u, t",
            one,
        ),
        (
            "WITH u AS (SELECT * FROM (SELECT * FROM t)), t AS (SELECT * FROM u) SELECT * FROM t",
            one,
        ),
        (
            "WITH t AS (SELECT 1), u AS (SELECT * FROM t) SELECT * FROM u",
            &[],
        ),
        (
            "WITH RECURSIVE u AS (SELECT * FROM t), t AS (SELECT 1 AS a UNION ALL SELECT a FROM t) SELECT * FROM u",
            &[],
        ),
        // What a subquery has of its own is gone behind it.
        (
            "SELECT * FROM (WITH t AS (SELECT 1) SELECT * FROM t), t",
            one,
        ),
        (
            "SELECT * FROM t UNION ALL (WITH t AS (SELECT 1) SELECT * FROM t)",
            one,
        ),
        (
            "WITH t AS (SELECT 1) SELECT 1 WHERE 1 IN (SELECT * FROM t WHERE EXISTS (SELECT 1 FROM t))",
            &[],
        ),
        (
            "WITH a AS (WITH t AS (SELECT 1) SELECT * FROM t) SELECT * FROM a, t JOIN t AS u ON TRUE",
            both,
        ),
    ] {
        assert_eq!(named(sql, Some("finance")), wanted, "{sql}");
    }
}

#[test]
fn a_project_of_a_domain_is_read_whole_and_only_where_a_table_follows() {
    let scope: Scope = "example.com:proj.finance:read".parse().expect("a scope");
    let read = |sql: &str| Reading::of(sql, 20, &scope, "example.com:proj", None).relations;
    for sql in [
        "SELECT * FROM `example.com:proj.finance.daily`",
        "SELECT * FROM `example.com:proj`.finance.daily",
        "SELECT * FROM `example.com:proj`.`finance.daily`",
        "SELECT * FROM `example.com:proj`.finance.INFORMATION_SCHEMA.TABLES",
        "SELECT * FROM finance.daily",
    ] {
        assert_eq!(read(sql), Relations::Within, "{sql}");
    }
    for sql in [
        "SELECT * FROM `example.com:proj.hr.salaries`",
        "SELECT * FROM `example.com:proj`.hr.salaries",
        "SELECT * FROM `example.com:other.finance.daily`",
        "SELECT * FROM `other.com:proj`.finance.daily",
        "SELECT * FROM `proj`.finance.daily",
        "SELECT * FROM `com:proj`.finance.daily",
        // No table follows: it is no name without a dataset, either.
        "SELECT * FROM `example.com:proj`",
        "SELECT * FROM `example.com:proj.finance`",
        "SELECT * FROM hr.`salaries:finance`",
        "SELECT * FROM `hr:finance.daily`",
    ] {
        assert!(
            matches!(read(sql), Relations::Outside(_)),
            "{sql}: {:?}",
            read(sql)
        );
    }
    let scope: Scope = "example.com:proj.scratch:write".parse().expect("a scope");
    let sql = "INSERT INTO `example.com:proj.scratch.t` (a) VALUES (1)";
    let read = Reading::of(sql, 20, &scope, "example.com:proj", None);
    let target = read.target.map(|table| table.to_string());
    assert_eq!(target.as_deref(), Some("example.com:proj.scratch.t"));
}

#[test]
fn behind_a_pipe_no_name_is_a_path_into_a_row() {
    for sql in [
        "FROM finance.daily |> CROSS JOIN finance.accounts AS hr |> SELECT 1 AS x |> CROSS JOIN hr.salaries",
        "FROM finance.daily AS hr |> CROSS JOIN hr.salaries",
        "SELECT 1 FROM finance.daily WHERE EXISTS (FROM finance.daily |> CROSS JOIN finance.accounts AS hr) AND EXISTS (SELECT 1 FROM hr.salaries)",
        "WITH hr AS (FROM finance.daily |> CROSS JOIN finance.accounts AS hr), b AS (SELECT 1 FROM hr.salaries) SELECT * FROM b",
        "SELECT (SELECT MAX(salary) FROM hr.salaries) AS x FROM finance.accounts WHERE EXISTS (FROM finance.daily |> CROSS JOIN finance.accounts AS hr)",
        "SELECT * FROM finance.daily AS hr, hr.salaries UNION ALL (FROM finance.daily |> SELECT 1)",
    ] {
        assert_eq!(
            read(sql),
            Relations::Outside("p.hr.salaries".into()),
            "{sql}"
        );
        assert!(
            named(sql, None).contains(&"p.hr.salaries".to_owned()),
            "{sql}"
        );
    }
}

#[test]
fn what_may_have_been_meant_as_a_path_is_refused_with_how_it_is_written() {
    let scope: Scope = "p.finance:read,p.scratch:write".parse().expect("a scope");
    let outside = |sql: &str| {
        let reading = Reading::of(sql, 20, &scope, "p", None);
        match &reading.relations {
            Relations::Outside(table) => Some(reading.shown(table)),
            Relations::None | Relations::Within | Relations::Unknown(_) => None,
        }
    };
    for sql in [
        "FROM finance.daily AS d |> CROSS JOIN d.parts",
        "SELECT ARRAY(SELECT 1 FROM D.parts) FROM finance.daily AS d",
        "INSERT INTO scratch.t (a) SELECT 1 FROM finance.daily AS d, d.parts",
    ] {
        let said = outside(sql).unwrap_or_default().to_ascii_lowercase();
        let hint = "p.d.parts (an array of the row d is read by unnest(d.parts))";
        assert_eq!(said, hint, "{sql}");
    }
    let sql = "FROM finance.daily AS d |> CROSS JOIN d.parts.of";
    let hint = "d.parts.of (an array of the row d is read by UNNEST(d.parts.of))";
    assert_eq!(outside(sql).as_deref(), Some(hint));
    let sql = "SELECT 1 FROM finance.daily AS d, hr.salaries";
    assert_eq!(outside(sql).as_deref(), Some("p.hr.salaries"));
    assert_eq!(outside("SELECT 1 FROM finance.daily AS d, d.parts"), None);
}

#[test]
fn a_routine_that_is_called_by_a_name_with_a_dataset_must_be_listed() {
    let scope: Scope = "p.finance:read".parse().expect("a scope");
    let called = |sql: &str| {
        let reading = Reading::of(sql, 20, &scope, "p", None);
        let names = reading.called.into_iter();
        let names = names.map(|name| name.map_or_else(|why| why, |name| name.to_string()));
        names.collect::<Vec<String>>()
    };
    for (sql, wanted) in [
        (
            "SELECT NET.HOST('x'), safe.substr('x', 1), HLL_COUNT.INIT(1), LOWER('X')",
            &[][..],
        ),
        ("SELECT finance.f(1)", &["p.finance.f"]),
        ("SELECT SAFE.finance.f(1)", &["p.finance.f"]),
        (
            "SELECT `q.finance.f`(1), q.finance.g(2)",
            &["q.finance.f", "q.finance.g"],
        ),
        (
            "SELECT 1 FROM finance.daily WHERE finance.f(x) > (SELECT finance.g(1))",
            &["p.finance.f", "p.finance.g"],
        ),
        ("FROM finance.daily |> WHERE finance.f(x)", &["p.finance.f"]),
        ("SELECT a.b.c.d(1)", &["a.b.c.d"]),
        ("SELECT finance.f(1).result", &["p.finance.f"]),
        (
            "SELECT finance.f(1)[OFFSET(0)], q.finance.g(1).a.b",
            &["p.finance.f", "q.finance.g"],
        ),
    ] {
        assert_eq!(called(sql), wanted, "{sql}");
    }
}

#[test]
fn what_an_unnest_is_of_may_be_a_table_to_bigquery_and_tells_of_none() {
    for of in [
        "hr.salaries",
        "`hr.salaries`",
        "(hr.salaries)",
        "hr.salaries.name",
    ] {
        for from in [
            "SELECT * FROM UNNEST({})",
            "SELECT ARRAY(SELECT x FROM UNNEST({}) AS x)",
        ] {
            let sql = from.replace("{}", of);
            assert!(matches!(read(&sql), Relations::Outside(_)), "{sql}");
        }
    }
    // It may be a column of what is named before it, or in it.
    let scope: Scope = "p.finance:read".parse().expect("a scope");
    let may = |sql: &str| {
        let reading = Reading::of(sql, 20, &scope, "p", None);
        (reading.relations, reading.may_name_more)
    };
    for (sql, wanted) in [
        ("SELECT * FROM finance.daily, UNNEST(hr.salaries)", true),
        (
            "SELECT * FROM finance.daily JOIN UNNEST(((hr.salaries))) ON TRUE",
            true,
        ),
        ("FROM finance.daily |> JOIN UNNEST(hr.salaries)", true),
        (
            "SELECT * FROM finance.daily, UNNEST(demo-project.hr.salaries)",
            true,
        ),
        ("SELECT * FROM finance.daily AS d, UNNEST(d.parts)", false),
        (
            "SELECT * FROM finance.daily, UNNEST(daily.parts.name)",
            false,
        ),
        (
            "SELECT * FROM finance.daily, UNNEST(parts), UNNEST([1, 2])",
            false,
        ),
    ] {
        assert_eq!(may(sql), (Relations::Within, wanted), "{sql}");
    }
}

#[test]
fn a_routine_of_another_dataset_is_outside_however_it_is_read() {
    for sql in [
        // A difference, and a routine of the project `project`.
        "SELECT demo-project.finance.f(1) FROM (SELECT 1 AS demo)",
        "SELECT hr.f(1)",
        "SELECT `net.host`('x')",
        "SELECT `safe.lower`('x')",
        "FROM finance.daily |> CALL net.host()",
        "FROM finance.daily |> CALL safe.lower()",
        "FROM finance.daily |> CALL hr.rows_of()",
    ] {
        assert!(
            !matches!(read(sql), Relations::Within | Relations::None),
            "{sql}"
        );
    }
    assert_eq!(read("SELECT finance.f(1)"), Relations::Within);
}

#[test]
fn what_is_read_as_of_the_result_of_a_call_is_not_taken_for_a_function() {
    for sql in [
        "SELECT 1 FROM finance.daily FOR SYSTEM_TIME AS OF hr . 1(1)",
        "SELECT 1 FROM finance.daily FOR SYSTEM_TIME AS OF finance.trim(1)",
    ] {
        assert!(
            matches!(read(sql), Relations::Unknown(_)),
            "{sql}: {:?}",
            read(sql)
        );
    }
}

#[test]
fn what_a_function_reads_is_not_nothing() {
    let sql = "SELECT 1 AS x |> CALL finance.rows_of()";
    assert_eq!(read(sql), Relations::Within);
    for (sql, function) in [
        ("SELECT * FROM TABLE_QUERY(hr, 'true')", "TABLE_QUERY"),
        ("SELECT * FROM some_rows([hr.x])", "some_rows"),
        ("WITH a AS (SELECT 1) SELECT * FROM a, f()", "f"),
        ("SELECT amount-own(2) FROM finance.daily", "amount-own"),
        // In backticks a keyword is a name like any other.
        ("SELECT `EXTRACT`(1) FROM finance.daily", "EXTRACT"),
    ] {
        let unknown = Relations::Unknown(Unread::Function(function.to_owned()));
        assert_eq!(read(sql), unknown, "{sql}");
    }
    // Columns, a table with its columns, and what is given to a query in brackets are no calls.
    for sql in [
        "INSERT INTO finance.daily (day, amount) (SELECT day, amount FROM finance.daily)",
        "SELECT amount-ABS(amount) FROM finance.daily WHERE (amount) IN (1, 2)",
    ] {
        let relations = read(sql);
        assert!(
            !matches!(relations, Relations::Unknown(_)),
            "{sql}: {relations:?}"
        );
    }
}

#[test]
fn another_datasets_views_of_itself_are_outside() {
    for sql in [
        "SELECT * FROM hr.INFORMATION_SCHEMA.TABLES",
        "SELECT * FROM p.hr.INFORMATION_SCHEMA.TABLES",
        "SELECT * FROM INFORMATION_SCHEMA.SCHEMATA",
        "SELECT * FROM `region-us`.INFORMATION_SCHEMA.TABLES",
        "SELECT * FROM finance.finance.INFORMATION_SCHEMA.TABLES",
    ] {
        assert!(matches!(read(sql), Relations::Outside(_)), "{sql}");
    }
}

#[test]
fn functions_of_their_own_grammar_are_read_behind_safe() {
    for (sql, wanted) in [
        ("SELECT SAFE.SUBSTR('a', 1), safe.floor(2)", Relations::None),
        ("SELECT `SAFE`.SUBSTR('a', 1)", Relations::None),
        (
            "SELECT SAFE.EXTRACT(DAY FROM d) FROM finance.daily",
            Relations::Within,
        ),
        (
            "SELECT SAFE.SUBSTR((SELECT MAX(name) FROM hr.salaries), 1)",
            Relations::Outside("p.hr.salaries".into()),
        ),
    ] {
        assert_eq!(read(sql), wanted, "{sql}");
    }
    // Called by a name with a dataset, it is a routine of that.
    let scope: Scope = "p.finance:read".parse().expect("a scope");
    let reading = Reading::of("SELECT hr.SAFE.SUBSTR('a', 1)", 10, &scope, "p", None);
    assert_eq!(
        reading.called[0].as_ref().map(ToString::to_string),
        Ok("hr.SAFE.SUBSTR".to_owned())
    );
}

#[test]
fn spellings_that_the_parser_does_not_know_are_read_for_what_they_name() {
    for sql in [
        "SELECT * FROM finance.daily AS d FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP()",
        "SELECT * FROM finance.daily d FOR SYSTEM_TIME AS OF TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 1 HOUR), d.parts",
        "SELECT amount << 2, amount >> 1 FROM finance.daily",
        "FROM finance.daily |> DISTINCT |> WINDOW SUM(a) OVER () AS s |> AGGREGATE COUNT(*) GROUP AND ORDER BY a DESC",
        "SELECT a FROM finance.daily FULL UNION ALL BY NAME SELECT b FROM finance.accounts",
    ] {
        assert_eq!(read(sql), Relations::Within, "{sql}");
    }
    for sql in [
        "SELECT * FROM hr.salaries AS s FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP()",
        // The table has the alias for its name, and not its own.
        "SELECT * FROM finance.hr AS d FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP(), hr.salaries",
        "SELECT * FROM finance.daily AS d FOR SYSTEM_TIME AS OF (SELECT MAX(t) FROM hr.salaries)",
        "SELECT 1 FROM finance.daily AS hr WHERE EXISTS (SELECT 1 FROM finance.daily AS e FOR SYSTEM_TIME AS OF (SELECT MAX(t) FROM hr.salaries))",
        "SELECT amount << (SELECT MAX(s) FROM hr.salaries) FROM finance.daily",
        "FROM hr.salaries |> DISTINCT |> SELECT salary",
        "FROM finance.daily |> DISTINCT |> CROSS JOIN hr.salaries",
        "FROM finance.daily |> WINDOW (SELECT MAX(s) FROM hr.salaries) AS s",
        "SELECT a FROM finance.daily INNER UNION ALL BY NAME SELECT b FROM hr.salaries",
        // Behind a dot no word is a keyword.
        "SELECT 1 << 2 FROM finance.daily AS d, d.left UNION ALL (FROM hr.salaries)",
        "SELECT 1 FROM finance.daily AS d FOR SYSTEM_TIME AS OF STRUCT(1 AS `join`).join UNION ALL (FROM hr.salaries)",
    ] {
        assert_eq!(
            read(sql),
            Relations::Outside("p.hr.salaries".into()),
            "{sql}"
        );
    }
}

#[test]
fn a_list_of_columns_behind_a_name_is_none_of_googlesqls_and_is_not_read() {
    for sql in [
        "SELECT * FROM finance.daily AS d (a, b)",
        "SELECT * FROM finance.daily d (FROM hr.salaries)",
        "SELECT * FROM (SELECT 1) AS d (a)",
        "SELECT * FROM UNNEST([1]) AS d (a)",
    ] {
        assert!(matches!(read(sql), Relations::Unknown(_)), "{sql}");
    }
}

#[test]
fn joins_of_other_dialects_and_signs_for_tables_are_not_read() {
    for sql in [
        "SELECT 1 FROM finance.daily AS d GLOBAL JOIN finance.x ON TRUE",
        "SELECT 1 FROM finance.daily AS d SEMI JOIN finance.x ON TRUE",
        "SELECT 1 FROM (finance.daily AS d ANTI JOIN finance.x ON TRUE)",
        "SELECT 1 FROM finance.daily CROSS APPLY finance.x",
        "SELECT 1 FROM finance.daily JOIN @5 `hr.salaries` ON TRUE",
        "SELECT 1 FROM finance.daily JOIN @x `hr.salaries` ON TRUE",
    ] {
        assert!(
            matches!(read(sql), Relations::Unknown(_)),
            "{sql}: {:?}",
            read(sql)
        );
    }
}

#[test]
fn a_rows_name_counts_for_the_same_letters_alone() {
    // The sign for Kelvin is a small k to some, and none to BigQuery.
    let sql = "SELECT * FROM finance.daily AS `\u{212a}`, k.salaries";
    assert_eq!(read(sql), Relations::Outside("p.k.salaries".into()));
    let sql = "SELECT * FROM finance.daily AS K, k.salaries";
    assert_eq!(read(sql), Relations::Within);
}

#[test]
fn a_statement_that_writes_names_its_target_and_all_it_reads() {
    let scope: Scope = "p.finance:read,p.scratch:write".parse().expect("a scope");
    let read = |sql: &str| {
        let read = Reading::of(sql, 10, &scope, "p", None);
        (read.relations, read.target.map(|table| table.to_string()))
    };
    let outside = || Relations::Outside("p.hr.salaries".into());
    let target = || Some("p.scratch.t".to_owned());
    for (sql, relations) in [
        (
            "INSERT INTO scratch.t (a) SELECT amount FROM finance.daily",
            Relations::Within,
        ),
        (
            "INSERT INTO scratch.t (a) SELECT salary FROM hr.salaries",
            outside(),
        ),
        (
            "UPDATE scratch.t AS hr SET a = 1 FROM hr.salaries WHERE TRUE",
            outside(),
        ),
        (
            "MERGE `p.scratch.t` AS t USING hr.salaries AS s ON t.a = s.a WHEN MATCHED THEN DELETE",
            outside(),
        ),
        (
            "CREATE TABLE scratch.t AS SELECT * FROM hr.salaries",
            outside(),
        ),
        (
            "DELETE FROM scratch.t WHERE a IN (SELECT salary FROM hr.salaries)",
            outside(),
        ),
    ] {
        assert_eq!(read(sql), (relations, target()), "{sql}");
    }
    let dropped = Some("p.hr.salaries".to_owned());
    assert_eq!(read("DROP TABLE hr.salaries"), (outside(), dropped));
    assert_eq!(
        read("INSERT INTO t (a) VALUES (1)"),
        (Relations::None, None)
    );
}

#[test]
fn a_default_dataset_counts_for_names_without_one() {
    let scope: Scope = "p.finance:read".parse().expect("a scope");
    let within = |dataset: &str| {
        let default = DefaultDataset {
            project: None,
            dataset: dataset.into(),
        };
        let sql = "WITH c AS (SELECT 1) SELECT * FROM t, c";
        Reading::of(sql, 14, &scope, "p", Some(&default)).relations
    };
    assert_eq!(within("finance"), Relations::Within);
    assert_eq!(within("hr"), Relations::Outside("t".into()));
}

/// Reads the deepest texts of so many tokens on a stack of so many bytes.
fn deepest(tokens: usize, stack: usize) {
    let scope: Scope = "p.finance:read".parse().expect("a scope");
    let sqls = ["TRUE OR ", "SELECT 1 UNION ALL ", "1 + ", "a -", "a.b || "].map(|part| {
        let body = part.repeat(tokens / part.split_whitespace().count());
        if part.starts_with("SELECT") {
            format!("{body}SELECT 1")
        } else {
            format!("SELECT {body}1")
        }
    });
    let parse = move || sqls.map(|sql| Reading::of(&sql, tokens, &scope, "p", None).relations);
    let read = std::thread::Builder::new()
        .stack_size(stack)
        .spawn(parse)
        .expect("a thread")
        .join()
        .expect("no overflow");
    assert!(
        read.iter()
            .all(|relations| matches!(relations, Relations::None | Relations::Unknown(_)))
    );
}

#[test]
fn the_longest_texts_fit_the_stack_they_are_read_on() {
    // The runtime's workers have two mebibytes.
    deepest(TOKENS_ANYWHERE_MAX, 2 * 1024 * 1024);
    deepest(TOKENS_MAX, STACK_BYTES);
}

#[tokio::test]
async fn a_long_text_is_read_elsewhere_and_a_longer_one_not_at_all() {
    let scope: Scope = "p.finance:read".parse().expect("a scope");
    let sql = format!(
        "SELECT 1 FROM hr.salaries WHERE {}TRUE",
        "TRUE OR ".repeat(4000)
    );
    let read = |tokens| Reading::with_room(&sql, tokens, &scope, "p", None);
    let outside = Relations::Outside("p.hr.salaries".into());
    assert_eq!(read(8000).await.relations, outside);
    let hidden = Reading::unknown(Unread::Hidden);
    assert_eq!(read(TOKENS_MAX + 1).await, hidden);
}
