// swift-tools-version: 6.0

import PackageDescription

// SwiftPM takes a package by URL only with the manifest at the repository's root; everything that it
// builds lies in swift_demo/.
//
// MViTKit is pure Swift and works on every platform. MViTCoreML needs Core ML and Vision: it works on
// the platforms named here, is empty on Linux, and says so in an error on watchOS, which has no Vision.
let package = Package(
  name: "mvit-coreml",
  platforms: [.iOS(.v17), .macOS(.v14), .macCatalyst(.v17), .tvOS(.v17), .visionOS(.v1)],
  products: [
    .library(name: "MViTKit", targets: ["MViTKit"]),
    .library(name: "MViTCoreML", targets: ["MViTCoreML"]),
    .executable(name: "mvit", targets: ["mvit"]),
  ],
  targets: [
    .target(name: "MViTKit", path: "swift_demo/Sources/MViTKit"),
    .target(
      name: "MViTCoreML", dependencies: ["MViTKit"], path: "swift_demo/Sources/MViTCoreML"),
    .executableTarget(
      name: "mvit", dependencies: ["MViTKit", "MViTCoreML"], path: "swift_demo/Sources/mvit"),
    // The demo app's words and rules: Xcode compiles the folder into the app, SwiftPM for its tests.
    .target(
      name: "MViTDemoLogic", dependencies: ["MViTKit"], path: "swift_demo/MViTDemo/Logic"),
    .testTarget(
      name: "MViTKitTests", dependencies: ["MViTKit"], path: "swift_demo/Tests/MViTKitTests"),
    .testTarget(
      name: "MViTDemoLogicTests", dependencies: ["MViTDemoLogic", "MViTKit"],
      path: "swift_demo/Tests/MViTDemoLogicTests"),
  ],
  swiftLanguageModes: [.v6]
)
