# The units of a target compiled in batches (TANDEM_UNITY): from nothing, most seconds go into reading the same headers
# and instantiating the same templates again for every unit. Preset `all` does it; the others compile every unit alone.
#
# CPU seconds (g++ 12, -O2, a busy machine)     a unit alone    a batch of eight
#   cli (CLI11, gRPC, protobuf, nlohmann)          5 to 16          17 to 29
#   coordinator/service (gRPC, protobuf)           6 to 9           11 to 20
#   spec (protobuf, nlohmann, yaml-cpp)               8              7 to 12
set(CMAKE_UNITY_BUILD ON)
set(CMAKE_UNITY_BUILD_BATCH_SIZE 8)
# To g++ an included .cc is a header, where a class with a member of an anonymous type would be a mistake.
target_compile_options(tandem_warnings INTERFACE -Wno-subobject-linkage)
# A batch names its units by whole paths. With __FILE__ relative again, clones share the compiler cache for them, too.
add_compile_options(-fmacro-prefix-map=${CMAKE_SOURCE_DIR}/=)
