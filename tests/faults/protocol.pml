/* Leases, requests, ledger and trials as the database keeps them, for the model checker SPIN (Debian's package spin).

   Two referees and two workers; any of them may be killed or stopped anywhere, and go on with what it knew (a stopped
   process does); leases lapse at any time. What is one transaction is one atomic step, but a decision reads first and
   writes later, as READ COMMITTED does. The keys of tables are what may not be violated: a violation undoes the
   transaction. NO_KEYS and NO_FENCE leave them out, to see that the properties rest on them.

       spin -a protocol.pml && cc -O2 -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m1000000

   Requests and trials share no table here: TRIALS checks the latter. Every state is visited: none that may not be, and
   none from which nothing goes on before all is answered.
*/

#define REQUESTS 3   /* 0 and 1 ask the same question, 2 asks another one */
#define QUESTIONS 2
#define REFEREES 2
#define WORKERS 2
#ifndef FAULTS
#define FAULTS 2     /* kills of each process, and lapses of referees' leases */
#endif
#define ATTEMPTS 3

#define question(r) (r / 2)
#define NOBODY 255

bool outbox[REQUESTS], answers[REQUESTS];      /* primary keys: the request */
byte answers_given[REQUESTS];                  /* how often people saw an answer come */
byte ledger[QUESTIONS];                        /* rows; unique: set and question */
byte claim[REQUESTS] = NOBODY;
bool lives[REFEREES] = true;                   /* the lease of a referee */
byte lapses;

bool suggested = true, running, succeeded, failed;   /* the one trial */
byte holder = NOBODY, attempt, observations;
bool lease;

proctype Referee(byte me)
{
  byte r, kills;
  bool known;

claiming:
  do
  :: atomic {  /* take a request that no living referee has; commit at once */
       select(r : 0 .. REQUESTS - 1);
       if
       :: !outbox[r] && (claim[r] == NOBODY || claim[r] == me || !lives[claim[r]]) -> claim[r] = me; lives[me] = true
       :: else -> goto claiming
       fi }
     known = ledger[question(r)] > 0;           /* the decision reads */
     if
     :: kills < FAULTS -> kills++; goto claiming  /* killed: nothing was written */
     :: skip
     fi;
     atomic {                                   /* and commits: the ledger, unless known, and the outbox */
       if
#ifndef NO_KEYS
       :: outbox[r] -> skip                     /* decided by another: undone */
       :: !outbox[r] && !known && ledger[question(r)] > 0 -> skip   /* counted by another: undone, decided anew */
       :: !outbox[r] && (known || ledger[question(r)] == 0) ->
#else
       :: true ->
#endif
            if
            :: !known -> ledger[question(r)]++
            :: else -> skip
            fi;
            outbox[r] = true;
            if
            :: claim[r] == me -> claim[r] = NOBODY
            :: else -> skip
            fi
       fi }
  :: atomic {                                   /* publish what was decided */
       select(r : 0 .. REQUESTS - 1);
       if
       :: outbox[r] && !answers[r] -> answers[r] = true; answers_given[r]++
       :: else -> skip
       fi }
  :: answers[0] && answers[1] && answers[2] -> break
  od
}

proctype Worker(byte me)
{
  byte mine, kills;

asking:
  do
  :: atomic {                                   /* claim: a new attempt fences off every earlier one */
       !succeeded && !failed && (suggested || (running && !lease)) ->
       if
       :: attempt < ATTEMPTS + 2 * FAULTS -> attempt++; mine = attempt; holder = me;
            suggested = false; running = true; lease = true
       :: else -> failed = true; running = false; suggested = false; goto asking
       fi }
     if                                         /* training: killed, stopped, or done */
     :: kills < FAULTS -> kills++; goto asking
     :: skip
     fi;
     atomic {                                   /* end: state, observation and model in one transaction */
       if
#ifndef NO_FENCE
       :: running && attempt == mine && holder == me ->
#else
       :: true ->
#endif
            running = false; suggested = false; succeeded = true; observations++
       :: else -> skip                          /* taken over by another attempt */
       fi }
  :: succeeded || failed -> break
  od
}

active proctype Time()
{
  byte i;
  do
  :: lapses < FAULTS -> atomic { select(i : 0 .. REFEREES - 1); lives[i] = false; lapses++ }
  :: atomic { running && lease -> lease = false }
  :: (answers[0] && answers[1] && answers[2]) || succeeded || failed -> break
  od
}

active proctype Observer()
{
  /* asked in every state, since its step may come between any two */
end_watch:
  atomic { (observations > 1 || ledger[0] > 1 || ledger[1] > 1 || answers_given[0] > 1 || answers_given[1] > 1
            || answers_given[2] > 1 || (answers[0] && !outbox[0]) || (answers[2] && ledger[1] != 1)
            || (succeeded && observations != 1) || (succeeded && failed)) -> assert(false) }
}

init {
#ifdef TRIALS
  run Worker(0); run Worker(1)
#else
  run Referee(0); run Referee(1)
#endif
}
