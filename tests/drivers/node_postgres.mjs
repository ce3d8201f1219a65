// node-postgres (pg), with pg-cursor and pg-copy-streams. What the steps are: README.md beside this file.

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createRequire } from 'node:module'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'

const require = createRequire(process.env.PGWARD_NODE_MODULES)
const { Client, Pool, Query } = require('pg')
const Cursor = require('pg-cursor')
const { from: copyFrom, to: copyTo } = require('pg-copy-streams')

const [URL, PATIENT] = process.argv.slice(2)
const NAME = 'node_postgres'
const OBSERVE = `INSERT INTO observations (patient_id, loinc, name, value, unit, observed_at)
    VALUES ($1, $2, 'Step', $3, 'no', '2026-01-01 00:00:00Z')`
const OBSERVED = 'SELECT count(*)::int, sum(value)::int FROM observations WHERE patient_id = $1 AND loinc = $2'

const say = (step, ...results) =>
  console.log(`${step}:`, ...results.map((result) => (typeof result === 'string' ? result : JSON.stringify(result))))

const sqlstate = (work) => work.then(() => 'no error', (error) => error.code ?? String(error))

// The values of the first row.
const first = async (client, text, values) => Object.values((await client.query(text, values)).rows[0])

async function inTransaction(client, end, work) {
  await client.query('BEGIN')
  try {
    await work()
  } finally {
    await client.query(end)
  }
}

async function login(client) {
  say('login', ...(await first(client, 'SELECT current_database(), current_user')))
  const wrong = new Client({ connectionString: URL.replace(/:[^:@]*@/, ':wrong@') })
  say('wrong-password', await sqlstate(wrong.connect()))
}

async function parameters(client) {
  const query = 'SELECT id, region FROM patients WHERE id = $1 AND region = $2'
  const [id, region] = await first(client, query, [PATIENT, 'us-east'])
  say('parameters', id === PATIENT, region)
  say('literal', ...(await first(client, `SELECT region FROM patients WHERE id = '${PATIENT}'`)))
  const row = await client.query({ text: query, values: [PATIENT, 'us-east'], rowMode: 'array', binary: true })
  say('binary', row.rows[0][1])
}

async function types(client) {
  const values = {
    payload: Buffer.from(Array.from({ length: 256 }, (_, n) => n)),
    tags: ['', 'a,b', '"{}\\', null, 'ä'],
    doc: { a: [1, null, 'ü'], b: { c: 1.5 } },
    seen: new Date('2026-02-28T23:59:59.999Z'),
    amount: '12345678901234567890.123456789',
    note: null,
  }
  await inTransaction(client, 'ROLLBACK', async () => {
    const insert = `INSERT INTO pgbench_history (driver, id, key, ${Object.keys(values)}) VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8)`
    await client.query(insert, [NAME, PATIENT, ...Object.values(values)])
    for (const column of Object.keys(values)) {
      say(column, await first(client, `SELECT ${column} FROM pgbench_history WHERE driver = $1`, [NAME]))
    }
    say('key', (await first(client, 'SELECT key FROM pgbench_history WHERE driver = $1', [NAME]))[0] === PATIENT)
  })
}

async function prepared(client) {
  for (let n = 0; n < 100; n++) {
    await inTransaction(client, 'COMMIT', async () => {
      await client.query({ name: 'observe', text: OBSERVE, values: [PATIENT, NAME, n] })
      await client.query({ name: 'code', text: 'SELECT title FROM icd10_codes WHERE code = $1', values: ['I10'] })
    })
  }
  await inTransaction(client, 'COMMIT', async () => {
    say('prepared', ...(await first(client, { name: 'observed', text: OBSERVED, values: [PATIENT, NAME] })))
  })
}

async function pipelined(client) {
  const piped = new Client({ connectionString: URL, pipeline: true })
  await piped.connect()
  const all = [piped.query('BEGIN')]
  for (let n = 0; n < 20; n++) all.push(piped.query(OBSERVE, [PATIENT, NAME, n]))
  all.push(piped.query(OBSERVED, [PATIENT, NAME]), piped.query('ROLLBACK'))
  say('pipeline', (await Promise.all(all)).at(-2).rows[0])
  const failing = ['BEGIN', 'SELECT 1 / 0', "SELECT 'not reached'", 'ROLLBACK', "SELECT 'usable'"]
  say('pipeline-error', await Promise.all(failing.map((text) => sqlstate(piped.query(text)))))
  await piped.end()
}

async function several(client) {
  const results = await client.query("SELECT 1 AS one; SELECT 'two' AS two")
  say('several-statements', results.map((result) => result.rows[0]))
  say('empty', (await client.query('')).rows)
}

async function transactions(client) {
  const allergy = "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ($1, $2, 'Hives', 'mild')"
  const count = 'SELECT count(*)::int FROM allergies WHERE patient_id = $1 AND substance = $2'
  const remove = 'DELETE FROM allergies WHERE patient_id = $1 AND substance = $2'
  const mine = [PATIENT, NAME]
  await inTransaction(client, 'COMMIT', () => client.query(allergy, mine))
  await inTransaction(client, 'COMMIT', async () => say('commit', ...(await first(client, count, mine))))
  await inTransaction(client, 'ROLLBACK', () => client.query(remove, mine))
  await inTransaction(client, 'COMMIT', async () => {
    say('rollback', ...(await first(client, count, mine)))
    await client.query('SAVEPOINT here')
    await client.query(remove, mine)
    await client.query('ROLLBACK TO SAVEPOINT here')
    say('savepoint', ...(await first(client, count, mine)))
  })
  say('delete', (await client.query(remove, mine)).rowCount)
}

async function errors(client) {
  say('error', await sqlstate(client.query('SELECT 1 / $1::int', [0])))
  const insert = "INSERT INTO allergies (patient_id, substance, reaction, severity) VALUES ($1, 'x', 'x', 'none')"
  await inTransaction(client, 'ROLLBACK', async () => {
    say('error-in-transaction', await sqlstate(client.query(insert, [PATIENT])))
    say('failed-transaction', await sqlstate(client.query('SELECT 1')))
  })
  say('after-error', ...(await first(client, "SELECT 'usable'")))
}

async function cancel(client) {
  const running = new Client({ connectionString: URL })
  await running.connect()
  const statement = new Query('SELECT pg_sleep(60)')
  const ended = once(running.query(statement), 'error')
  // Again and again: a request that comes before the statement has begun cancels nothing.
  const asking = setInterval(() => {
    const asker = new Client({ connectionString: URL })
    // The server answers nothing to such a request but the end of its connection.
    asker.connection.on('error', () => {})
    asker.cancel(running, statement)
  }, 500)
  const [{ code: state }] = await ended.catch((error) => [error])
  clearInterval(asking)
  say('cancel', state, ...(await first(running, "SELECT 'usable'")))
  await running.end()
  await inTransaction(client, 'ROLLBACK', async () => {
    await client.query('SET LOCAL statement_timeout = 300')
    say('statement-timeout', await sqlstate(client.query('SELECT pg_sleep(60)')))
  })
}

async function copy(client) {
  await inTransaction(client, 'ROLLBACK', async () => {
    const columns = 'patient_id, loinc, name, value, unit, observed_at'
    const row = (n) => `${PATIENT}\tcopy-${NAME}\ttab\\tand\\\\\t${n}\tno\t2026-01-01 00:00:00Z\n`
    const into = client.query(copyFrom(`COPY observations (${columns}) FROM STDIN`))
    await pipeline(Readable.from(Array.from({ length: 1000 }, (_, n) => row(n))), into)
    const query = `SELECT name, value FROM observations WHERE patient_id = '${PATIENT}' AND loinc = 'copy-${NAME}' ORDER BY id`
    const out = Buffer.concat(await client.query(copyTo(`COPY (${query}) TO STDOUT`)).toArray())
    say('copy', into.rowCount, createHash('md5').update(out).digest('hex'))
  })
}

async function large(client) {
  const text = '0123456789abcdef'.repeat(327680)
  const payload = Buffer.alloc(5242880, 'bytes\0')
  say('large-text', (await first(client, 'SELECT $1::text', [text]))[0] === text)
  await inTransaction(client, 'ROLLBACK', async () => {
    await client.query('INSERT INTO pgbench_history (driver, id, payload) VALUES ($1, 1, $2)', [NAME, payload])
    const [got] = await first(client, 'SELECT payload FROM pgbench_history WHERE driver = $1', [NAME])
    say('large-bytea', got.length, got.equals(payload))
  })
}

async function cursors(client) {
  await inTransaction(client, 'COMMIT', async () => {
    const query = 'SELECT value::int FROM observations WHERE patient_id = $1 AND loinc = $2 ORDER BY value'
    const cursor = client.query(new Cursor(query, [PATIENT, NAME]))
    let sum = 0
    for (let rows = await cursor.read(7); rows.length > 0; rows = await cursor.read(7)) {
      sum += rows.reduce((total, row) => total + row.value, 0)
    }
    await cursor.close()
    const closed = client.query(new Cursor(query, [PATIENT, NAME]))
    say('cursor', sum, (await closed.read(2)).map((row) => row.value))
    await closed.close()
  })
}

async function fifty() {
  const pool = new Pool({ connectionString: URL, max: 50 })
  const clients = await Promise.all(Array.from({ length: 50 }, () => pool.connect()))
  const one = async (client) => {
    await client.query('BEGIN')
    const [region] = await first(client, 'SELECT region FROM patients WHERE id = $1', [PATIENT])
    await client.query('COMMIT')
    client.release()
    return region
  }
  const regions = await Promise.all(clients.map(one))
  say('fifty', regions.filter((region) => region === 'us-east').length)
  await pool.end()
}

const client = new Client({ connectionString: URL })
await client.connect()
for (const step of [login, parameters, types, prepared, pipelined, several, transactions, errors, cancel, copy, large, cursors, fifty]) {
  await step(client)
}
await client.query('DELETE FROM observations WHERE patient_id = $1 AND loinc = $2', [PATIENT, NAME])
await client.end()
say('end')
