// postgres.js. What the steps are: README.md beside this file.

import { createHash } from 'node:crypto'
import { createRequire } from 'node:module'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout } from 'node:timers/promises'

const postgres = createRequire(process.env.PGWARD_NODE_MODULES)('postgres')

const [URL, PATIENT] = process.argv.slice(2)
const NAME = 'postgres_js'

const say = (step, ...results) =>
  console.log(`${step}:`, ...results.map((result) => (typeof result === 'string' ? result : JSON.stringify(result))))

const sqlstate = (work) => work.then(() => 'no error', (error) => error.code ?? String(error))

const observe = (sql, n) => sql`INSERT INTO observations (patient_id, loinc, name, value, unit, observed_at)
    VALUES (${PATIENT}, ${NAME}, 'Step', ${n}, 'no', '2026-01-01 00:00:00Z')`
const observed = async (sql) =>
  (await sql`SELECT count(*)::int, sum(value)::int FROM observations WHERE patient_id = ${PATIENT} AND loinc = ${NAME}`)[0]

const ROLLED_BACK = new Error('rolled back')
const rolledBack = (sql, work) =>
  sql.begin(async (sql) => { await work(sql); throw ROLLED_BACK }).catch((error) => { if (error !== ROLLED_BACK) throw error })

async function login(sql) {
  say('login', (await sql`SELECT current_database(), current_user`)[0])
  const wrong = postgres(URL, { password: 'wrong', max: 1 })
  say('wrong-password', await sqlstate(wrong`SELECT 1`))
  await wrong.end()
}

async function parameters(sql) {
  const [row] = await sql`SELECT id, region FROM patients WHERE id = ${PATIENT} AND region = ${'us-east'}`
  say('parameters', row.id === PATIENT, row.region)
  say('literal', (await sql.unsafe(`SELECT region FROM patients WHERE id = '${PATIENT}'`))[0])
  say('simple', await sql`SELECT 1 AS one; SELECT 'two' AS two`.simple())
}

async function types(sql) {
  const row = {
    driver: NAME,
    id: 1,
    payload: Buffer.from(Array.from({ length: 256 }, (_, n) => n)),
    tags: ['', 'a,b', '"{}\\', null, 'ä'],
    doc: { a: [1, null, 'ü'], b: { c: 1.5 } },
    seen: new Date('2026-02-28T23:59:59.999Z'),
    amount: '12345678901234567890.123456789',
    note: null,
    key: PATIENT,
  }
  await rolledBack(sql, async (sql) => {
    await sql`INSERT INTO pgbench_history ${sql(row)}`
    const [got] = await sql`SELECT * FROM pgbench_history WHERE driver = ${NAME}`
    for (const column of Object.keys(row)) {
      say(column, column === 'key' ? got.key === PATIENT : got[column])
    }
  })
}

async function prepared(sql) {
  for (let n = 0; n < 100; n++) {
    await sql.begin(async (sql) => {
      await observe(sql, n)
      await sql`SELECT title FROM icd10_codes WHERE code = ${'I10'}`
    })
  }
  say('prepared', await sql.begin(observed))
}

async function pipelined(sql) {
  await rolledBack(sql, async (sql) => {
    // Sent without waiting for each other's answers.
    await Promise.all(Array.from({ length: 20 }, (_, n) => observe(sql, n)))
    say('pipeline', await observed(sql))
  })
  const failing = [0, 1, 2].map((n) => sqlstate(sql`SELECT 1 / (${n}::int - 1)`))
  say('pipeline-error', await Promise.all(failing))
}

async function transactions(sql) {
  const count = async (sql) =>
    (await sql`SELECT count(*)::int FROM allergies WHERE patient_id = ${PATIENT} AND substance = ${NAME}`)[0]
  const remove = (sql) => sql`DELETE FROM allergies WHERE patient_id = ${PATIENT} AND substance = ${NAME}`
  await sql.begin(
    (sql) => sql`INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES (${PATIENT}, ${NAME}, 'Hives', 'mild')`,
  )
  say('commit', await sql.begin(count))
  await rolledBack(sql, remove)
  await sql.begin(async (sql) => {
    say('rollback', await count(sql))
    await sql.savepoint(async (sql) => { await remove(sql); throw ROLLED_BACK }).catch(() => {})
    say('savepoint', await count(sql))
  })
  say('read-only', await sqlstate(sql.begin('READ ONLY', remove)))
  say('delete', (await remove(sql)).count)
}

async function errors(sql) {
  say('error', await sqlstate(sql`SELECT 1 / ${0}::int`))
  const failing = sql.begin(async (sql) => {
    const insert = sql`INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES (${PATIENT}, 'x', 'x', 'none')`
    say('error-in-transaction', await sqlstate(insert))
    say('failed-transaction', await sqlstate(sql`SELECT 1`))
  })
  say('transaction', await sqlstate(failing))
  say('after-error', (await sql`SELECT 'usable' AS it`)[0])
}

async function cancel(sql) {
  const watching = postgres(URL, { max: 1 })
  const asleep = () =>
    watching.begin(async (sql) => {
      const [{ count }] = await sql`SELECT count(*)::int FROM pg_stat_activity
        WHERE wait_event = 'PgSleep' AND application_name = ${'step_of_' + NAME}`
      return count === 1
    })
  const cancelled = sql.begin(async (sql) => {
    // In a transaction of the patient, so that it is known which server to ask whether the statement has begun: the
    // driver asks but once to cancel it, and before it has begun that cancels nothing.
    await sql`SELECT region FROM patients WHERE id = ${PATIENT}`
    await sql.unsafe(`SET LOCAL application_name = 'step_of_${NAME}'`)
    const statement = sql`SELECT pg_sleep(60) AS step_of_postgres_js`
    const ended = sqlstate(statement)
    while (!(await asleep())) await setTimeout(100)
    statement.cancel()
    say('cancel', await ended)
  })
  say('transaction', await sqlstate(cancelled))
  say('after-cancel', (await sql`SELECT 'usable' AS it`)[0])
  await watching.end()
}

// Fewer rows than elsewhere: with more than its streams buffer, this driver may stall under load, on a server too.
async function copy(sql) {
  await rolledBack(sql, async (sql) => {
    const row = (n) => `${PATIENT}\tcopy-${NAME}\ttab\\tand\\\\\t${n}\tno\t2026-01-01 00:00:00Z\n`
    const into = await sql`COPY observations (patient_id, loinc, name, value, unit, observed_at) FROM STDIN`.writable()
    await pipeline(Readable.from(Array.from({ length: 100 }, (_, n) => row(n))), into)
    const query = `SELECT name, value FROM observations WHERE patient_id = '${PATIENT}' AND loinc = 'copy-${NAME}' ORDER BY id`
    const out = createHash('md5')
    for await (const chunk of await sql.unsafe(`COPY (${query}) TO STDOUT`).readable()) out.update(chunk)
    say('copy', out.digest('hex'))
  })
}

async function large(sql) {
  const text = '0123456789abcdef'.repeat(327680)
  const payload = Buffer.alloc(5242880, 'bytes\0')
  say('large-text', (await sql`SELECT ${text}::text AS it`)[0].it === text)
  await rolledBack(sql, async (sql) => {
    await sql`INSERT INTO pgbench_history (driver, id, payload) VALUES (${NAME}, 1, ${payload})`
    const [got] = await sql`SELECT payload FROM pgbench_history WHERE driver = ${NAME}`
    say('large-bytea', got.payload.length, got.payload.equals(payload))
  })
}

async function cursors(sql) {
  await sql.begin(async (sql) => {
    let [sum, batches] = [0, 0]
    const query = sql`SELECT value::int FROM observations WHERE patient_id = ${PATIENT} AND loinc = ${NAME}`
    await query.cursor(7, (rows) => {
      batches++
      sum += rows.reduce((total, row) => total + row.value, 0)
    })
    say('cursor', sum, batches)
  })
}

async function fifty() {
  const pool = postgres(URL, { max: 50 })
  const one = () =>
    pool.begin(async (sql) => (await sql`SELECT region FROM patients WHERE id = ${PATIENT}`)[0].region)
  const regions = await Promise.all(Array.from({ length: 50 }, one))
  say('fifty', regions.filter((region) => region === 'us-east').length)
  await pool.end()
}

const sql = postgres(URL, { max: 1, onnotice: () => {} })
for (const step of [login, parameters, types, prepared, pipelined, transactions, errors, cancel, copy, large, cursors]) {
  await step(sql)
}
await fifty()
await sql`DELETE FROM observations WHERE patient_id = ${PATIENT} AND loinc = ${NAME}`
await sql.end()
say('end')
