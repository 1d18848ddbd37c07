# The units of a target compiled in batches (TANDEM_UNITY): from nothing, most seconds go into reading the same headers and
# instantiating the same templates for every unit. Preset `all` does it; the others compile every unit alone.
#
# CPU seconds (g++ 12, -O2)      one unit                            a batch of eight
set(CMAKE_UNITY_BUILD ON)
set(CMAKE_UNITY_BUILD_BATCH_SIZE 8)
# To g++ an included .cc is a header, where a class with a member of an anonymous type would be a mistake.
target_compile_options(tandem_warnings INTERFACE -Wno-subobject-linkage)
