//! Questions that a part of a statement's syntax answers by itself: what of it is no table's name, and what is not GoogleSQL's.

use sqlparser::ast::{self, Expr, Join, JoinOperator, SetExpr, TableFactor, TableWithJoins};

/// Whether a query is made of what names tables in a way that is not visited: `TABLE hr.salaries`, or a statement that writes.
pub(super) fn is_unread(body: &SetExpr) -> bool {
    match body {
        // Queries are visited by themselves.
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => false,
        SetExpr::SetOperation { left, right, .. } => is_unread(left) || is_unread(right),
        SetExpr::Insert(_)
        | SetExpr::Update(_)
        | SetExpr::Delete(_)
        | SetExpr::Merge(_)
        | SetExpr::Table(_) => true,
    }
}

/// Whether no row can be named within a part of a FROM that was named before it: a subquery, a join in parentheses, the time that a table is read
/// as of, what a function in it is given and what a PIVOT makes see nothing of what stands beside or around them, and what is named inside is gone
/// behind them.
pub(super) const fn is_apart(factor: &TableFactor) -> bool {
    matches!(
        factor,
        TableFactor::Derived { .. }
            | TableFactor::NestedJoin { .. }
            | TableFactor::Pivot { .. }
            | TableFactor::Unpivot { .. }
            | TableFactor::MatchRecognize { .. }
            | TableFactor::Table {
                version: Some(_),
                ..
            }
            | TableFactor::Table { args: Some(_), .. }
    )
}

/// Whether a list of columns stands behind its name. GoogleSQL has no such list, so what looks like one is something else: a query in parentheses
/// behind `UNION ALL`, where the parser took these words for a name.
pub(super) fn names_columns(factor: &TableFactor) -> bool {
    let (TableFactor::Table { alias, .. }
    | TableFactor::Derived { alias, .. }
    | TableFactor::TableFunction { alias, .. }
    | TableFactor::Function { alias, .. }
    | TableFactor::UNNEST { alias, .. }
    | TableFactor::NestedJoin { alias, .. }
    | TableFactor::Pivot { alias, .. }
    | TableFactor::Unpivot { alias, .. }
    | TableFactor::MatchRecognize { alias, .. }) = factor
    else {
        return true;
    };
    alias
        .as_ref()
        .is_some_and(|alias| !alias.columns.is_empty())
}

/// Whether it is joined in a way that GoogleSQL has not: the words for it are a name to GoogleSQL.
pub(super) fn is_joined_otherwise(from: &TableWithJoins) -> bool {
    let is_known = |join: &Join| {
        matches!(
            join.join_operator,
            JoinOperator::Join(_)
                | JoinOperator::Inner(_)
                | JoinOperator::Left(_)
                | JoinOperator::LeftOuter(_)
                | JoinOperator::Right(_)
                | JoinOperator::RightOuter(_)
                | JoinOperator::FullOuter(_)
                | JoinOperator::CrossJoin(_)
        ) && !join.global
    };
    !from.joins.iter().all(is_known)
}

/// Whether it is a parameter or a hint, neither of which is a table.
pub(super) fn is_sign(factor: &TableFactor) -> bool {
    matches!(factor, TableFactor::Table { name, .. } if name.to_string().starts_with('@'))
}

/// Whether a clause of its own follows what it is made from, in which that has no name.
pub(super) const fn has_clause(factor: &TableFactor) -> bool {
    matches!(
        factor,
        TableFactor::Pivot { .. }
            | TableFactor::Unpivot { .. }
            | TableFactor::MatchRecognize { .. }
    )
}

/// Whether it is a difference that may be a name with hyphens.
pub(super) fn is_dashed(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::BinaryOp {
            op: ast::BinaryOperator::Minus,
            ..
        }
    )
}

pub(super) const fn is_function(factor: &TableFactor) -> bool {
    matches!(
        factor,
        TableFactor::Table { args: Some(_), .. }
            | TableFactor::Function { .. }
            | TableFactor::TableFunction { .. }
    )
}
