-- Ordinary mistakes, one a line: what BigQuery says of them helps whoever made them, and tells of nothing else.
SELECT amout FROM finance.daily
SELECT d.amout FROM finance.daily d
SELECT zzz FROM finance.daily
SELECT x.amount FROM finance.daily d
SELECT day, SUM(amount) FROM finance.daily
SELECT d.day, SUM(d.amount) FROM finance.daily d GROUP BY amount
SELECT amount FROM finance.daily HAVING SUM(amount)>1
SELECT day FROM finance.daily GROUP BY day ORDER BY amount
SELECT day FROM finance.daily GROUP BY day HAVING amount>1
SELECT amount = 'x' FROM finance.daily
SELECT day = amount FROM finance.daily
SELECT amount + name FROM finance.daily, finance.accounts
SELECT SUM(name) FROM finance.accounts
SELECT LENGTH(amount) FROM finance.daily
SELECT NOFUNC(amount) FROM finance.daily
SELECT SUM(amount) FROM finance.daily WHERE SUM(amount) > 1
SELECT SUM(SUM(amount)) FROM finance.daily
SELECT amount FROM finance.daily WHERE amount
SELECT amount FROM finance.daily WHERE 'x'
SELECT CAST(amount AS DATE) FROM finance.daily
SELECT DATE 'xx'
SELECT TIMESTAMP '2020'
SELECT amount FROM finance.daily UNION ALL SELECT day, amount FROM finance.daily
SELECT amount FROM finance.daily UNION ALL SELECT day FROM finance.daily
SELECT amount FROM finance.daily WHERE amount IN (SELECT day, amount FROM finance.daily)
SELECT (SELECT day, amount FROM finance.daily)
SELECT amount FROM finance.daily LIMIT 'x'
SELECT * FROM finance.invoices, UNNEST(id)
SELECT parts.sku FROM finance.invoices
SELECT parts[0].nosku FROM finance.invoices
SELECT id.x FROM finance.invoices
SELECT * EXCEPT (foo) FROM finance.daily
SELECT * REPLACE (1 AS foo) FROM finance.daily
SELECT ROW_NUMBER() FROM finance.daily
SELECT amount FROM finance.daily WHERE ROW_NUMBER() OVER () = 1
SELECT amount FROM finance.daily QUALIFY amount = 1
SELECT amount FROM finance.daily d JOIN finance.accounts a ON d.amount
SELECT amount FROM finance.daily JOIN finance.accounts USING (id)
SELECT amount FROM finance.daily JOIN finance.accounts
SELECT 1 FROM finance.daily d, finance.accounts d
WITH a AS (SELECT 1), a AS (SELECT 2) SELECT * FROM a
SELECT parts FROM finance.invoices ORDER BY parts
SELECT day FROM finance.daily GROUP BY 3
SELECT day FROM finance.daily ORDER BY 3
SELECT amount FROM finance.daily ORDER BY SUM(amount)
INSERT INTO scratch.notes (id, text) VALUES (1)
INSERT INTO scratch.notes (id, foo) VALUES (1, 2)
INSERT INTO scratch.notes (id, text) VALUES (1, 2)
INSERT INTO scratch.notes (id, id) VALUES (1, 2)
INSERT INTO scratch.notes (id, text) SELECT id FROM finance.accounts
INSERT INTO scratch.notes (id, text) SELECT name, id FROM finance.accounts
UPDATE scratch.notes SET foo = 1 WHERE TRUE
UPDATE scratch.notes SET id = 'x' WHERE TRUE
UPDATE scratch.notes SET id = name WHERE TRUE
DELETE FROM scratch.notes WHERE id
SELECT amount finance.daily WHERE
SELECT (amount FROM finance.daily
SELECT amount FROM finance.daily GROUP amount
SELECT amount, FROM finance.daily WHERE amount ==  1
SELECT EXTRACT(foo FROM day) FROM finance.daily
SELECT DATE_DIFF(day, day, foo) FROM finance.daily
SELECT DATE_TRUNC(day) FROM finance.daily
SELECT IF(1, 2, 3)
SELECT CASE WHEN 1 THEN 2 END
SELECT CASE amount WHEN 'x' THEN 2 ELSE 'y' END FROM finance.daily
SELECT COALESCE(1, 'x')
SELECT [1, 'x']
SELECT STRUCT(1 AS a).b
SELECT ? + 1
SELECT amount AS a FROM finance.daily WHERE a = 1
SELECT SUM(amount) OVER w FROM finance.daily
SELECT SUM(amount) OVER (ORDER BY day ROWS BETWEEN 'x' PRECEDING AND CURRENT ROW) FROM finance.daily
SELECT GENERATE_ARRAY(1)
SELECT ARRAY_AGG(amount ORDER BY foo) FROM finance.daily
SELECT STRING_AGG(amount) FROM finance.daily
SELECT d.* FROM finance.daily
SELECT amount.* FROM finance.daily
SELECT amount FROM finance.daily TABLESAMPLE SYSTEM (200 PERCENT)
SELECT * FROM finance.daily PIVOT(SUM(amount) FOR foo IN (1))
SELECT a FROM finance.accounts a WHERE a > 1
SELECT amount BETWEEN 'a' AND 'b' FROM finance.daily
SELECT amount LIKE 'a' FROM finance.daily
SELECT NOT amount FROM finance.daily
SELECT -name FROM finance.accounts
SELECT amount AND TRUE FROM finance.daily
SELECT day + 'x' FROM finance.daily
SELECT name > 5 FROM finance.accounts
SELECT (SELECT AS STRUCT 1, 2) > 1
CREATE TABLE scratch.t (a INT64, a STRING)
CREATE TABLE scratch.t AS SELECT 1, 1
CREATE TABLE scratch.t AS SELECT amout FROM finance.daily
SELECT ROUND('x')
SELECT SAFE_DIVIDE(1)
SELECT JSON_VALUE(1)
SELECT PARSE_DATE('%Y')
SELECT FORMAT_DATE('%Y', 'x')
SELECT DATE_ADD(day, 1 DAY) FROM finance.daily
SELECT DATE_ADD(day, INTERVAL 1 FOO) FROM finance.daily
SELECT day >= '2020-13-45' FROM finance.daily
SELECT CONCAT() FROM finance.daily
MERGE scratch.notes n USING finance.accounts a ON n.foo = a.id WHEN MATCHED THEN DELETE
MERGE scratch.notes n USING finance.accounts a ON n.id = a.id WHEN MATCHED THEN UPDATE SET foo = 1
FROM finance.daily |> WHERE foo = 1
FROM finance.daily |> AGGREGATE SUM(foo)
FROM finance.daily |> SELEC amount
SELECT 9223372036854775808
SELECT ANY_VALUE(amount) HAVING MAX x FROM finance.daily
SELECT amount FROM finance.daily WHERE amount IN ('x')
SELECT amount FROM finance.daily WHERE amount IN UNNEST([1,'x'])
SELECT amount, COUNT(*) FROM finance.daily GROUP BY ALL HAVING foo
SELECT LAG(amount) FROM finance.daily
SELECT RANK() OVER () FROM finance.daily
SELECT NULLIF(1,'a')
SELECT * FROM finance.nothing
