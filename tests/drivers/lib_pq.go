// lib/pq under database/sql. What the steps are: README.md beside this file.
package main

import (
	"bytes"
	"context"
	"crypto/md5"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lib/pq"
)

const (
	name    = "lib_pq"
	observe = `INSERT INTO observations (patient_id, loinc, name, value, unit, observed_at)
		VALUES ($1, $2, 'Step', $3, 'no', '2026-01-01 00:00:00Z')`
	observed = "SELECT count(*), sum(value)::int FROM observations WHERE patient_id = $1 AND loinc = $2"
)

var patient string

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func say(step string, results ...any) {
	fmt.Println(append([]any{step + ":"}, results...)...)
}

func sqlstate(err error) string {
	var failure *pq.Error
	switch {
	case err == nil:
		return "no error"
	case errors.As(err, &failure):
		return string(failure.Code)
	}
	return err.Error()
}

func open(dsn string) *sql.DB {
	db, err := sql.Open("postgres", dsn+"?sslmode=disable")
	must(err)
	return db
}

// What both a pool and a transaction can do.
type queryer interface {
	QueryRow(query string, args ...any) *sql.Row
	Exec(query string, args ...any) (sql.Result, error)
}

func text(on queryer, query string, args ...any) string {
	var value sql.NullString
	if err := on.QueryRow(query, args...).Scan(&value); err != nil {
		return sqlstate(err)
	}
	return value.String
}

func inTransaction(db *sql.DB, commit bool, work func(tx *sql.Tx)) {
	tx, err := db.Begin()
	must(err)
	work(tx)
	if commit {
		must(tx.Commit())
	} else {
		must(tx.Rollback())
	}
}

func exec(on queryer, query string, args ...any) int64 {
	result, err := on.Exec(query, args...)
	must(err)
	count, err := result.RowsAffected()
	must(err)
	return count
}

func login(db *sql.DB, dsn string) {
	say("login", text(db, "SELECT current_database() || ' ' || current_user"))
	wrong, err := url.Parse(dsn)
	must(err)
	wrong.User = url.UserPassword(wrong.User.Username(), "wrong")
	say("wrong-password", sqlstate(open(wrong.String()).Ping()))
}

func parameters(db *sql.DB, dsn string) {
	query := "SELECT region FROM patients WHERE id = $1 AND region = $2"
	say("parameters", text(db, query, patient, "us-east"))
	say("literal", text(db, "SELECT region FROM patients WHERE id = '"+patient+"'"))
	// Parameters in binary, in one round trip without a preparation.
	binary, err := sql.Open("postgres", dsn+"?sslmode=disable&binary_parameters=yes")
	must(err)
	defer binary.Close()
	say("binary-parameters", text(binary, query, patient, "us-east"))
}

func types(db *sql.DB) {
	payload := make([]byte, 256)
	for n := range payload {
		payload[n] = byte(n)
	}
	there := func(text string) sql.NullString { return sql.NullString{String: text, Valid: true} }
	tags := []sql.NullString{there(""), there("a,b"), there("\"{}\\"), {}, there("ä")}
	seen := time.Date(2026, 2, 28, 23, 59, 59, 999999000, time.UTC)
	inTransaction(db, false, func(tx *sql.Tx) {
		exec(tx, `INSERT INTO pgbench_history (driver, id, payload, tags, key, doc, seen, amount, note)
			VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8)`, name, payload, pq.Array(tags),
			patient, `{"a": [1, null, "ü"]}`, seen, "12345678901234567890.123456789", nil)
		var (
			gotPayload                []byte
			gotTags                   []sql.NullString
			gotSeen                   time.Time
			gotKey, gotDoc, gotAmount string
			gotNote                   sql.NullString
		)
		row := tx.QueryRow("SELECT payload, tags, key, doc, seen, amount, note FROM pgbench_history WHERE driver = $1", name)
		must(row.Scan(&gotPayload, pq.Array(&gotTags), &gotKey, &gotDoc, &gotSeen, &gotAmount, &gotNote))
		say("types", bytes.Equal(gotPayload, payload), gotTags, gotKey == patient, gotDoc, gotSeen.Equal(seen), gotAmount, gotNote)
	})
}

func prepared(db *sql.DB) {
	insert, err := db.Prepare(observe)
	must(err)
	code, err := db.Prepare("SELECT title FROM icd10_codes WHERE code = $1")
	must(err)
	for n := 0; n < 100; n++ {
		inTransaction(db, true, func(tx *sql.Tx) {
			_, err := tx.Stmt(insert).Exec(patient, name, n)
			must(err)
			var title string
			must(tx.Stmt(code).QueryRow("I10").Scan(&title))
		})
	}
	must(insert.Close())
	must(code.Close())
	inTransaction(db, true, func(tx *sql.Tx) {
		var count, sum int
		must(tx.QueryRow(observed, patient, name).Scan(&count, &sum))
		say("prepared", count, sum)
	})
}

func transactions(db *sql.DB) {
	count := "SELECT count(*) FROM allergies WHERE patient_id = $1 AND substance = $2"
	remove := "DELETE FROM allergies WHERE patient_id = $1 AND substance = $2"
	allergy := "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ($1, $2, 'Hives', 'mild')"
	inTransaction(db, true, func(tx *sql.Tx) { exec(tx, allergy, patient, name) })
	inTransaction(db, true, func(tx *sql.Tx) { say("commit", text(tx, count, patient, name)) })
	inTransaction(db, false, func(tx *sql.Tx) { exec(tx, remove, patient, name) })
	inTransaction(db, true, func(tx *sql.Tx) {
		say("rollback", text(tx, count, patient, name))
		exec(tx, "SAVEPOINT here")
		exec(tx, remove, patient, name)
		exec(tx, "ROLLBACK TO here")
		say("savepoint", text(tx, count, patient, name))
	})
	tx, err := db.BeginTx(context.Background(), &sql.TxOptions{Isolation: sql.LevelSerializable})
	must(err)
	say("serializable", text(tx, "SHOW transaction_isolation"), text(tx, count, patient, name))
	must(tx.Commit())
	tx, err = db.BeginTx(context.Background(), &sql.TxOptions{ReadOnly: true})
	must(err)
	_, err = tx.Exec(remove, patient, name)
	say("read-only", sqlstate(err))
	must(tx.Rollback())
	say("delete", exec(db, remove, patient, name))
}

func failures(db *sql.DB) {
	say("error", text(db, "SELECT 1 / $1::int", 0))
	tx, err := db.Begin()
	must(err)
	_, err = tx.Exec("INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ($1, 'x', 'x', 'none')", patient)
	say("error-in-transaction", sqlstate(err))
	say("failed-transaction", text(tx, "SELECT 1"))
	must(tx.Rollback())
	say("after-error", text(db, "SELECT 'usable'"))
}

func cancel(db *sql.DB) {
	// A context that ends makes the driver ask the server to cancel.
	tx, err := db.Begin()
	must(err)
	ctx, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	_, err = tx.ExecContext(ctx, "SELECT pg_sleep(60)")
	say("cancel", sqlstate(err))
	// The driver does not use this connection any more; the pool opens another.
	say("after-cancel", sqlstate(tx.Rollback()), text(db, "SELECT 'usable'"))
}

func copyRows(db *sql.DB) {
	inTransaction(db, false, func(tx *sql.Tx) {
		rows, err := tx.Prepare(pq.CopyIn("observations", "patient_id", "loinc", "name", "value", "unit", "observed_at"))
		must(err)
		for n := 0; n < 1000; n++ {
			_, err = rows.Exec(patient, "copy", "tab\tand\\", n, "no", "2026-01-01 00:00:00Z")
			must(err)
		}
		result, err := rows.Exec()
		must(err)
		count, err := result.RowsAffected()
		must(err)
		must(rows.Close())
		say("copy-in", count, text(tx, "SELECT count(*) || ' ' || sum(value) || min(name) FROM observations WHERE patient_id = $1 AND loinc = 'copy'", patient))
	})
	tx, err := db.Begin()
	must(err)
	rows, err := tx.Prepare(pq.CopyIn("allergies", "patient_id", "substance", "reaction", "severity"))
	must(err)
	_, err = rows.Exec(patient, "x", "x", "none")
	must(err)
	_, err = rows.Exec()
	say("copy-error", sqlstate(err))
	must(tx.Rollback())
}

func large(db *sql.DB) {
	long := strings.Repeat("0123456789abcdef", 327680)
	say("large-text", text(db, "SELECT $1::text", long) == long)
	inTransaction(db, false, func(tx *sql.Tx) {
		exec(tx, "INSERT INTO pgbench_history (driver, id, payload) VALUES ($1, 1, $2)", name, []byte(long))
		var got []byte
		must(tx.QueryRow("SELECT payload FROM pgbench_history WHERE driver = $1", name).Scan(&got))
		say("large-bytea", fmt.Sprintf("%x", md5.Sum(got)), string(got) == long)
	})
}

func cursors(db *sql.DB) {
	inTransaction(db, true, func(tx *sql.Tx) {
		query := "DECLARE rows CURSOR FOR SELECT value::int FROM observations WHERE patient_id = $1 AND loinc = $2"
		exec(tx, strings.NewReplacer("$1", pq.QuoteLiteral(patient), "$2", pq.QuoteLiteral(name)).Replace(query))
		sum, fetches := 0, 0
		for more := true; more; fetches++ {
			rows, err := tx.Query("FETCH 7 FROM rows")
			must(err)
			for more = false; rows.Next(); more = true {
				var value int
				must(rows.Scan(&value))
				sum += value
			}
			must(rows.Err())
		}
		say("cursor", sum, fetches)
	})
}

func fifty(dsn string) {
	db := open(dsn)
	defer db.Close()
	var (
		mutex sync.Mutex
		group sync.WaitGroup
		right int
	)
	for n := 0; n < 50; n++ {
		group.Add(1)
		go func() {
			defer group.Done()
			inTransaction(db, true, func(tx *sql.Tx) {
				region := text(tx, "SELECT region FROM patients WHERE id = $1", patient)
				mutex.Lock()
				defer mutex.Unlock()
				if region == "us-east" {
					right++
				}
			})
		}()
	}
	group.Wait()
	say("fifty", right)
}

func main() {
	dsn := os.Args[1]
	patient = os.Args[2]
	db := open(dsn)
	db.SetMaxOpenConns(1)
	login(db, dsn)
	parameters(db, dsn)
	types(db)
	prepared(db)
	transactions(db)
	failures(db)
	cancel(db)
	copyRows(db)
	large(db)
	cursors(db)
	fifty(dsn)
	say("delete", exec(db, "DELETE FROM observations WHERE patient_id = $1 AND loinc = $2", patient, name))
	must(db.Close())
	say("end")
}
