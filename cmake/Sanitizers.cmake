# EPO_SANITIZE instruments all code of our own with what -fsanitize= takes ("address,undefined", "thread"); the first report ends the
# program. The packages and libtorch stay as they are. EPO_FUZZ builds the programs of tests/fuzz
# with clang's libFuzzer, instead of tests.
set(EPO_SANITIZE "" CACHE STRING "What to instrument for, as -fsanitize= takes it")
option(EPO_FUZZ "Build the fuzzers; needs clang" OFF)

if(EPO_SANITIZE)
  add_compile_options(-fsanitize=${EPO_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${EPO_SANITIZE})
endif()
if(EPO_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
