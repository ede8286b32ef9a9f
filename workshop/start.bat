@echo off
rem Opens the course.
cd /d "%~dp0"
where py >nul 2>nul
if errorlevel 1 (python course.py lab %*) else (py course.py lab %*)
if errorlevel 1 pause
