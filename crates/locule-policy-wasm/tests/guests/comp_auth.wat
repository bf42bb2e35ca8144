;; A checker in text form: refuses every component that is requested as `example.Shell`.
;;
;; It reads the review document as it comes, with one pass over its bytes: at depth 3, inside `components`, it looks
;; at the strings under `requested` and `path`, in that order.
(component
  (type $decision-type (enum "allow" "warn" "deny"))
  (export $decision "decision" (type $decision-type))
  (type $finding-type (record
    (field "code" string) (field "message" string) (field "path" string) (field "public" bool)))
  (export $finding "finding" (type $finding-type))
  (type $verdict-type (record
    (field "component" string) (field "decision" $decision) (field "findings" (list $finding))))
  (export $verdict "verdict" (type $verdict-type))

  (core module $code
    (memory (export "memory") 1)
    (data (i32.const 16) "components")
    (data (i32.const 32) "requested")
    (data (i32.const 48) "path")
    (data (i32.const 64) "refused-here")                           ;; 12 bytes
    (data (i32.const 128) "example.Shell is not run here")         ;; 13 bytes of name, 29 in all; room for 128
    (global $free (mut i32) (i32.const 256))
    (global $verdicts (mut i32) (i32.const 0))
    (global $count (mut i32) (i32.const 0))

    ;; Memory is never given back: the instance ends with the review.
    (func $alloc (export "realloc") (param $old i32) (param $old-len i32) (param $align i32) (param $len i32)
      (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (global.set $free (i32.add (local.get $at) (local.get $len)))
      (block $enough
        (loop $grow
          (br_if $enough (i32.le_u (global.get $free) (i32.shl (memory.size) (i32.const 16))))
          (drop (memory.grow (i32.const 1)))
          (br $grow)))
      (memory.copy (local.get $at) (local.get $old) (local.get $old-len))
      (local.get $at))

    (func $is (param $at i32) (param $len i32) (param $word i32) (param $word-len i32) (result i32)
      (if (i32.ne (local.get $len) (local.get $word-len)) (then (return (i32.const 0))))
      (loop $next
        (if (i32.eqz (local.get $len)) (then (return (i32.const 1))))
        (local.set $len (i32.sub (local.get $len) (i32.const 1)))
        (br_if $next (i32.eq
          (i32.load8_u (i32.add (local.get $at) (local.get $len)))
          (i32.load8_u (i32.add (local.get $word) (local.get $len))))))
      (i32.const 0))

    ;; Where the string ends that begins here.
    (func $closing-quote (param $at i32) (result i32)
      (local $byte i32)
      (loop $next
        (local.set $byte (i32.load8_u (local.get $at)))
        (if (i32.eq (local.get $byte) (i32.const 34)) (then (return (local.get $at))))
        (local.set $at (i32.add (local.get $at)
          (select (i32.const 2) (i32.const 1) (i32.eq (local.get $byte) (i32.const 92)))))
        (br $next))
      (unreachable))

    ;; One more verdict, of 20 bytes, behind those that there are.
    (func $deny (param $path i32) (param $path-len i32)
      (local $finding i32) (local $verdict i32)
      (local.set $finding (call $alloc (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 28)))
      (i32.store (local.get $finding) (i32.const 64))
      (i32.store offset=4 (local.get $finding) (i32.const 12))
      (i32.store offset=8 (local.get $finding) (i32.const 128))
      (i32.store offset=12 (local.get $finding) (i32.const 29))
      (i32.store offset=16 (local.get $finding) (local.get $path))
      (i32.store offset=20 (local.get $finding) (local.get $path-len))
      (i32.store offset=24 (local.get $finding) (i32.const 1))
      (global.set $verdicts (call $alloc (global.get $verdicts) (i32.mul (global.get $count) (i32.const 20))
        (i32.const 4) (i32.mul (i32.add (global.get $count) (i32.const 1)) (i32.const 20))))
      (local.set $verdict (i32.add (global.get $verdicts) (i32.mul (global.get $count) (i32.const 20))))
      (i32.store (local.get $verdict) (local.get $path))
      (i32.store offset=4 (local.get $verdict) (local.get $path-len))
      (i32.store offset=8 (local.get $verdict) (i32.const 2))
      (i32.store offset=12 (local.get $verdict) (local.get $finding))
      (i32.store offset=16 (local.get $verdict) (i32.const 1))
      (global.set $count (i32.add (global.get $count) (i32.const 1))))

    (func (export "review") (param $at i32) (param $len i32) (result i32)
      (local $end i32) (local $byte i32) (local $depth i32) (local $text i32) (local $text-len i32)
      (local $in-components i32) (local $key i32) (local $bad i32) (local $answer i32)
      (local.set $end (i32.add (local.get $at) (local.get $len)))
      (block $done
        (loop $next
          (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
          (local.set $byte (i32.load8_u (local.get $at)))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (if (i32.eq (local.get $byte) (i32.const 34)) (then                 ;; "
            (local.set $text (local.get $at))
            (local.set $at (call $closing-quote (local.get $at)))
            (local.set $text-len (i32.sub (local.get $at) (local.get $text)))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 58))         ;; :
              (then
                (if (i32.eq (local.get $depth) (i32.const 1)) (then
                  (local.set $in-components
                    (call $is (local.get $text) (local.get $text-len) (i32.const 16) (i32.const 10)))))
                (if (i32.eq (local.get $depth) (i32.const 3)) (then
                  (local.set $key (i32.const 0))
                  (if (call $is (local.get $text) (local.get $text-len) (i32.const 32) (i32.const 9))
                    (then (local.set $key (i32.const 1))))
                  (if (call $is (local.get $text) (local.get $text-len) (i32.const 48) (i32.const 4))
                    (then (local.set $key (i32.const 2)))))))
              (else
                (if (i32.and (local.get $in-components) (i32.eq (local.get $depth) (i32.const 3))) (then
                  (if (i32.eq (local.get $key) (i32.const 1)) (then
                    (local.set $bad
                      (call $is (local.get $text) (local.get $text-len) (i32.const 128) (i32.const 13)))))
                  (if (i32.and (local.get $bad) (i32.eq (local.get $key) (i32.const 2))) (then
                    (call $deny (local.get $text) (local.get $text-len))))))))))
          (if (i32.eq (i32.or (local.get $byte) (i32.const 32)) (i32.const 123))   ;; { or [
            (then (local.set $depth (i32.add (local.get $depth) (i32.const 1)))))
          (if (i32.eq (i32.or (local.get $byte) (i32.const 32)) (i32.const 125))   ;; } or ]
            (then (local.set $depth (i32.sub (local.get $depth) (i32.const 1)))))
          (br $next)))
      (local.set $answer (call $alloc (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 12)))
      (i32.store offset=4 (local.get $answer) (global.get $verdicts))
      (i32.store offset=8 (local.get $answer) (global.get $count))
      (local.get $answer))
  )

  (core instance $it (instantiate $code))
  (func (export "review") (param "plan" string) (result (result (list $verdict) (error string)))
    (canon lift (core func $it "review") (memory (core memory $it "memory")) (realloc (core func $it "realloc"))))
)
